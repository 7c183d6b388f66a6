"use strict";
// Tables that sort by a click on a head and filter by words. Without this script they only stand there.
for (const grid of document.querySelectorAll(".grid")) {
  const body = grid.querySelector("tbody"), rows = [...body.rows];
  const heads = [...grid.querySelectorAll("thead th")];
  const value = (row, column) => row.cells[column].dataset.sort;
  const text = (row, column) => row.cells[column].textContent.trim();
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sign = down ? -1 : 1;
      const number = (row) => (value(row, column) === undefined ? NaN : parseFloat(value(row, column).replace("inf", "Infinity")));
      rows.sort((a, b) => {
        const [x, y] = [number(a), number(b)];
        if (!Number.isNaN(x) && !Number.isNaN(y) && x !== y) return x < y ? -sign : sign;
        return sign * text(a, column).localeCompare(text(b, column), undefined, { numeric: true });
      });
      body.append(...rows);
    });
  });
  const input = grid.querySelector("input[type=search]");
  if (!input) continue;
  const output = grid.querySelector("output");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const all = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => all.includes(word));
      shown += !row.hidden;
    }
    output.textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  });
}
// A table that is wider than its place says so.
const measure = () => document.querySelectorAll(".scroll").forEach((one) => {
  one.classList.toggle("wide", one.scrollWidth > one.clientWidth + 1);
});
addEventListener("resize", measure);
addEventListener("toggle", measure, true);
measure();
// On paper nothing is folded.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
