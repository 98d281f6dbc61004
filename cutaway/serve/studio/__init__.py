"""The studio's API and pages: thin routes over `interp`, `generation`, `training` and `tasks`.

    pages    the built pages, from cutaway/serve/static
    models   which models there are, and what each is
    look     analyses of a text, ledgers, pictures, what can be tried out, pages to keep
    examples tables of examples: answers, reasons, probes
    features dictionaries of features, graphs made of them
    heads    one head of an overview of attention, and one of its rows
    speak    tokens, chances of the next token, writing
    train    runs: begin, watch, stop, go on (`orders`: what they are asked and tell)

A request that computes is answered by frames: how far it is, then the result (`frames`), packed as bytes
(`cutaway.interp.pictures.wire`). When whoever asked goes away, the work ends at its next report.
"""
