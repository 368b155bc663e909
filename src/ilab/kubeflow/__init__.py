"""The same pipeline on Kubeflow Pipelines: its definition, the bodies of its tasks, and the client that submits it.

    ilab pipeline compile ─▶ definition ─▶ KFP v2 IR: importer, resolve, one task per step, results; finish at the exit
    resolve               parameters (the live ConfigMap among them) ─▶ settings and plan.json, as one KFP artifact
    a step's task         `ilab step run --plan … --step …` in the image, on the same store, under the same keys

The cluster has no copy of any logic: what a task does is in the package that its image holds, and the graph is read
from the same pipeline file as a local run's. KFP's own cache is off, since it knows a task by its arguments, not by the
contents that go in; our keys decide what is made again. kfp is needed to compile and to submit (``ilab[kubeflow]``),
and in the image because it starts the tasks.
"""
