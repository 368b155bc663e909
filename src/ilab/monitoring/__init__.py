"""What other programs are told of a run, from the same events that people see.

    events ──▶ RunState ──▶ exposition ─┬▶ http://…/metrics     where.monitoring.port
                                        └▶ a file *.prom        where.monitoring.textfile
    events in a TrainJob's pod ──▶ status POST                  environment of Kubeflow Trainer

    state.py     the newest figures of every step, as events tell them
    metrics.py   the table of metrics and their text
    exporters.py endpoint and file
    trainjob.py  Kubeflow Trainer's status

A step that says nothing for ``where.monitoring.stuck_minutes`` counts as stuck. None of this can stop a run, except at
the start: a port that is taken or a folder that cannot be written is told before anything is spent.
"""

from ilab.monitoring.exporters import monitored
from ilab.monitoring.metrics import METRICS, exposition
from ilab.monitoring.state import RunState
from ilab.monitoring.trainjob import reporting

__all__ = ["METRICS", "RunState", "exposition", "monitored", "reporting"]
