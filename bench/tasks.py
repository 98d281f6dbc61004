"""Tasks on real data sets, each beside a simple baseline on the same split; and speed beside transformers.

Every part is one figure or a few: `--only sst2` measures those with this in their names and keeps the others. A part
trains with the public function (`cutaway.tasks.train_task`), on the data's own splits; what a part chooses (rates,
epochs) was chosen on validation data. Each part is in `_tasks_*.py`.
"""

import _bench
import _tasks_classify
import _tasks_scratch
import _tasks_search
import _tasks_speed
import _tasks_summarise
import _tasks_tag
import _tasks_translate

options = _bench.options(__doc__, runs=1)
PARTS = [
    *_tasks_classify.PARTS,
    *_tasks_scratch.PARTS,
    *_tasks_search.PARTS,
    *_tasks_speed.PARTS,
    *_tasks_summarise.PARTS,
    *_tasks_tag.PARTS,
    *_tasks_translate.PARTS,
]
for part in PARTS:
    if options.only in part.__name__:
        figures = part(options.quick, options.runs) if part in _tasks_speed.PARTS else part(options.quick)
        _bench.report("tasks", figures, packages=["torch", "scikit-learn"], quick=options.quick, keep=True)
