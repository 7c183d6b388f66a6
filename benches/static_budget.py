"""The static budget of the Triton kernels: instructions a pair-point, registers and spills in the code for sm_90.

    python benches/static_budget.py [--json FILE] [--against benches/results/static_sm90.json]

Compiles without a GPU: Triton's wheel carries the assembler and the disassembler. *instructions* are those of the
innermost loop that a pair-point passes through, over the pair-points that one thread treats in it; *whole* adds to
them, for the flash kernel, the rest of its loop over key tiles. Ends 1 where a limit is passed, or where, with the same
version of Triton, a count is above that of `--against`; 2 on misuse or without Triton.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"  # before the kernels are defined: interpreted ones have no code

POINTERS = {
    "score": ("rot", "query", "key", "valid", "out", "low"),
    "flash": ("rot", "query", "key", "valid", "q", "k", "values", "geo_weight", "bias", "out", "lse", "statistics"),
    "gradient": ("rot", "of_rows", "of_keys", "gamma", "out"),
}
FLOATS = ("scale", "cap", "per_dof", "power", "floor", "dof", "least")
POINTS = 8
# Instructions a pair-point: the loop over points of a forward kernel, a whole flash kernel with 32 value columns, one
# side of the gradients. A clamped Student-t, which no preset has, may not spill, and has no limit of its own.
LIMITS = {"score": 115.0, "flash": 115.0, "flash whole, 32 columns": 135.0, "gradient": 140.0}


@dataclass(frozen=True)
class Count:
    """One kernel in one form. `whole` is None but for the flash kernel."""

    kernel: str
    form: str
    instructions: float
    whole: float | None
    registers: int
    spilled_bytes: int


def measure() -> list[Count]:
    """Every kernel in every form of the score, P = 8."""
    found = []
    for student in (False, True):
        for clamped in (False, True):
            score = {"STUDENT": student, "CLAMPED": clamped, "FAST": True}
            form = ("Student-t" if student else "Gaussian") + (", clamped" if clamped else "")
            found.append(_counted("score", form, score | {"LARGE_DOF": False, "LOWEST": False}))
            found.append(_counted("gradient", form, score))
        for capped in (False, True):
            for columns in (32, 64):
                score = {"STUDENT": student, "CLAMPED": False, "FAST": True, "LARGE_DOF": False, "CAPPED": capped}
                form = f"{'Student-t' if student else 'Gaussian'}{', capped' if capped else ''}, {columns} columns"
                shape = {"CHANNELS": 16, "WIDE": 32, "PARTS": columns // 32, "BIASED": False, "WATCHED": False}
                found.append(_counted("flash", form, score | shape))
    return found


def _counted(name: str, form: str, switches: dict[str, Any]) -> Count:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from iga.kernels.engine import Score
    from iga.kernels.triton import engine as fused

    kernel, how = {
        "score": (fused.score_kernel, fused.SCORE),
        "flash": (fused.flash_kernel, fused.FLASH),
        "gradient": (fused.gradient_kernel, fused.GRADIENT),
    }[name]
    constants: dict[str, Any] = {"ROWS": how.rows, "LANES": how.lanes, "POINTS": POINTS, **switches}
    if name != "score":
        constants["TILES"] = 0
    if name == "gradient":
        kind, floor = "student_t" if switches["STUDENT"] else "gaussian", 0.0 if switches["CLAMPED"] else float("-inf")
        constants["GROUPS"], constants["POINTS"] = fused.points_of_program(POINTS, Score(kind, 4.0, floor))
    names = [parameter.name for parameter in kernel.params]
    types = {n: "fp32" if n in FLOATS else "i32" for n in names}
    types |= {n: "*i32" if n == "valid" else "*fp32" for n in POINTERS[name]} | dict.fromkeys(constants, "constexpr")
    # What a launch knows of its arguments: memory begins at multiples of 16 bytes.
    aligned = {(names.index(n),): [["tt.divisibility", 16]] for n in POINTERS[name]}
    source = ASTSource(kernel, signature={n: types[n] for n in names}, constexprs=constants, attrs=aligned)
    options = {"num_warps": how.warps, "enable_fp_fusion": True}
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]
    code, usage = (_dumped(binary, option) for option in ("-sass", "--dump-resource-usage"))
    registers, stack, local = (
        int(re.search(rf"{field}:(\d+)", usage).group(1))  # pyright: ignore[reportOptionalMemberAccess]
        for field in ("REG", "STACK", "LOCAL")
    )
    elements = how.rows * how.lanes / (32 * how.warps)
    inner, outer = _loops(code)
    if name == "gradient":  # one loop, over keys: its points are unrolled
        return Count(name, form, inner / elements / constants["POINTS"], None, registers, stack + local)
    whole = None if outer is None else (outer + (POINTS - 1) * inner) / elements / POINTS
    return Count(name, form, inner / elements, whole, registers, stack + local)


def _dumped(binary: bytes, option: str) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        return subprocess.run([str(tool), option, file.name], capture_output=True, text=True, check=True).stdout


def _loops(code: str) -> tuple[int, int | None]:
    """(instructions of the innermost loop that has arithmetic in it, those of the loop around it, if there is one).

    A loop is what a backward branch closes. Raises RuntimeError where the code has more loops than that.
    """
    lines = re.findall(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?);", code, re.M)
    instructions = [(int(address, 16), text) for address, text in lines]
    found = []
    for address, text in instructions:
        branch = re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", text)
        if branch and (start := int(branch.group(1), 16)) <= address:
            body = [x for at, x in instructions if start <= at <= address]
            if any("FFMA" in x for x in body):
                found.append((start, address, len(body)))
    found.sort(key=lambda loop: loop[2])
    nested = all(b[0] <= a[0] and a[1] <= b[1] for a, b in zip(found, found[1:], strict=False))
    if not 1 <= len(found) <= 2 or not nested:
        raise RuntimeError(f"expected a loop, or one within another, found {found}")
    return found[0][2], found[1][2] if len(found) == 2 else None


def complaints(counts: list[Count], triton_version: str, earlier: dict[str, Any] | None) -> list[str]:
    """What is over its limit, or has grown since `earlier`; a line each."""
    lines = []
    same = earlier is not None and earlier["triton"] == triton_version
    before = {(c["kernel"], c["form"]): c for c in earlier["counts"]} if same and earlier else {}
    for count in counts:
        where = f"{count.kernel}, {count.form}"
        limits = [(f"{count.instructions:.1f} instructions a pair-point", count.instructions, LIMITS[count.kernel])]
        if count.form == "Student-t, clamped":
            limits = []
        if count.whole is not None and "32 columns" in count.form:
            limits.append((f"{count.whole:.1f} instructions in all", count.whole, LIMITS["flash whole, 32 columns"]))
        limits.append((f"{count.spilled_bytes} bytes spilled", float(count.spilled_bytes), 0.0))
        lines += [f"{where}: {what}, limit {limit:g}" for what, value, limit in limits if not value <= limit]
        then = before.get((count.kernel, count.form))
        for field in ("instructions", "whole", "registers"):
            old, new = then and then[field], getattr(count, field)
            if old is not None and new is not None and new > old:
                lines.append(f"{where}: {field} grew from {old:g} to {new:g}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the counts there")
    parser.add_argument("--against", type=Path, help="an earlier result: end 1 where a count has grown")
    options = parser.parse_args(arguments)
    try:
        import triton
    except ImportError:
        print("static_budget: triton is not installed", file=sys.stderr)
        return 2
    earlier = None
    if options.against is not None:
        try:
            earlier = json.loads(options.against.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            print(f"static_budget: {options.against}: {error}", file=sys.stderr)
            return 2
    counts = measure()
    for c in counts:
        whole = "" if c.whole is None else f", {c.whole:.1f} in all"
        print(
            f"{c.kernel:9} {c.form:30} {c.instructions:6.1f} instructions a pair-point{whole}, "
            f"{c.registers} registers, {c.spilled_bytes} bytes spilled"
        )
    if options.json is not None:
        result = {"schema": 1, "target": "sm_90", "triton": triton.__version__, "date": date.today().isoformat()}
        result |= {"points": POINTS, "counts": [asdict(c) for c in counts]}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    lines = complaints(counts, triton.__version__, earlier)
    for line in lines:
        print(f"over budget: {line}", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
