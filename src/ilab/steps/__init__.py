"""Every step of the product, on four pages: its fields are its identity, ``run`` hands over to the stage that does it.

A step's inputs and output are the annotations of ``run``; how the steps are wired is data (``pipelines/*.yaml``).
Whatever is imported inside ``run`` is heavy and only needed there.
"""

from __future__ import annotations

from ilab.core.step import Step
from ilab.steps.data import (
    CollectDocuments,
    Earlier,
    Generate,
    HoldOut,
    Mix,
    PickLeaves,
    ReadRows,
    ReadTaxonomy,
    Stack,
)
from ilab.steps.evaluation import Answers, Calibrate, Compare, Evaluate, Gate, MtBench, MtBenchBranch, Select, Suite
from ilab.steps.packaging import Changelog, PackageModel, PreviousRelease, Push, Register
from ilab.steps.training import MakeBase, Train

STEPS: dict[str, type[Step]] = {
    step.type: step
    for step in (
        ReadTaxonomy,
        PickLeaves,
        CollectDocuments,
        HoldOut,
        MakeBase,
        PreviousRelease,
        Suite,
        Generate,
        Earlier,
        Mix,
        ReadRows,
        Stack,
        Train,
        Calibrate,
        Evaluate,
        Select,
        Answers,
        MtBench,
        MtBenchBranch,
        Compare,
        Gate,
        Changelog,
        PackageModel,
        Push,
        Register,
    )
}
