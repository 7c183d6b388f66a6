"""Documents, and what is made of them: tables, pages and pictures. Nothing is judged here, and no document is made.

    documents, schema   the type of every command's result, and how a file is read and written as one
    verify, faults, …   a document as blocks, one module a command
    document, console   blocks as Markdown, HTML or a terminal's tables
    plots               the palette and axes of all pictures; bench_plot, picture: two of them

Imports nothing of the packages that it reports on.
"""
