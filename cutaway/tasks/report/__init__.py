"""What was measured of a task's model: the report, how it is made, and its faces: terminal, JSON, page, model card."""

from cutaway.tasks.report.card import write_report
from cutaway.tasks.report.measure import compare_tasks, evaluate_file, measure_task
from cutaway.tasks.report.report import Calibration, Compared, Miss, Point, Slice, Suspect, TaskReport, told
from cutaway.tasks.report.rows import AnsweredRow, AnsweredRows, RowSlice, answer_rows, labelling_model
from cutaway.tasks.report.stored import StoredFigure, StoredReport, stored_report

__all__ = [
    "AnsweredRow",
    "AnsweredRows",
    "Calibration",
    "Compared",
    "Miss",
    "Point",
    "RowSlice",
    "Slice",
    "StoredFigure",
    "StoredReport",
    "Suspect",
    "TaskReport",
    "answer_rows",
    "compare_tasks",
    "evaluate_file",
    "labelling_model",
    "measure_task",
    "stored_report",
    "told",
    "write_report",
]
