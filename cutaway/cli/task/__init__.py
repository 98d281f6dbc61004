"""Put a model to work on files of your own: train a task, let it answer, measure it, ask it why.

Examples:
  cutaway task train classify --data reviews.csv --from sentence-transformers/all-MiniLM-L6-v2 --out model
  cutaway task predict model new.csv
  cutaway task evaluate model test.csv --html report.html
  cutaway task why model "The room was cold and the staff rude."
  cutaway task index docs --out idx --model sentence-transformers/all-MiniLM-L6-v2
  cutaway task search idx "how are parcels sent back?"
  cutaway task summarise report.pdf --sentences 3
"""

ACTIONS = {
    "train": "cutaway.cli.task.train",
    "tune": "cutaway.cli.task.tune",
    "merge": "cutaway.cli.task.merge",
    "predict": "cutaway.cli.task.predict",
    "evaluate": "cutaway.cli.task.evaluate",
    "why": "cutaway.cli.task.why",
    "index": "cutaway.cli.task.index",
    "search": "cutaway.cli.task.search",
    "ask": "cutaway.cli.task.ask",
    "decide": "cutaway.cli.task.decide",
    "list": "cutaway.cli.task.list",
    "summarise": "cutaway.cli.task.summarise",
    "translate": "cutaway.cli.task.translate",
}
