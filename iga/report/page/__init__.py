"""The HTML page of documents: one file that loads nothing.

model                what a page is made of: runs, sections, tables, drawings, red rows
verify, matrix, …    a document as sections
drawings             figures as SVG, whose colours follow the page's
page                 the page itself, from page.html.j2, page.css and page.js
"""
