"""Put it to work: tasks on a user's own files, each a file on the same models, heads, training loop and engine."""

from cutaway.tasks.config import TaskConfig
from cutaway.tasks.data import Aside, TaskData, read_data, read_examples
from cutaway.tasks.decision import Decision, decide
from cutaway.tasks.recipes import RECIPES, Recipe, task_config
from cutaway.tasks.registry import TASKS, task_from
from cutaway.tasks.report import (
    AnsweredRows,
    StoredReport,
    TaskReport,
    answer_rows,
    evaluate_file,
    measure_task,
    stored_report,
)
from cutaway.tasks.task import Answer, Example, Measured, Quantity, Role, Task, task_to_dict
from cutaway.tasks.train import Trained, resume_task, train_task
from cutaway.tasks.trained import TaskModel, merge_task, open_task

__all__ = [
    "RECIPES",
    "TASKS",
    "Answer",
    "AnsweredRows",
    "Aside",
    "Decision",
    "Example",
    "Measured",
    "Quantity",
    "Recipe",
    "Role",
    "StoredReport",
    "Task",
    "TaskConfig",
    "TaskData",
    "TaskModel",
    "TaskReport",
    "Trained",
    "answer_rows",
    "decide",
    "evaluate_file",
    "measure_task",
    "merge_task",
    "open_task",
    "read_data",
    "read_examples",
    "resume_task",
    "stored_report",
    "task_config",
    "task_from",
    "task_to_dict",
    "train_task",
]
