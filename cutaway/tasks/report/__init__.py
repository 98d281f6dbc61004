"""What was measured of a task's model: the report, how it is made, and its faces: terminal, JSON, page, model card."""

from cutaway.tasks.report.card import write_report
from cutaway.tasks.report.measure import compare_tasks, evaluate_file, measure_task
from cutaway.tasks.report.report import Calibration, Compared, Miss, Point, Slice, Suspect, TaskReport

__all__ = [
    "Calibration",
    "Compared",
    "Miss",
    "Point",
    "Slice",
    "Suspect",
    "TaskReport",
    "compare_tasks",
    "evaluate_file",
    "measure_task",
    "write_report",
]
