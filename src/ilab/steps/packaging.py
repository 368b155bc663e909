"""Steps that hand models on, and take over those that were handed on before. See :mod:`ilab.steps`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from ilab.artifacts import Candidates, Checkpoint, Package, Report, Samples, Taxonomy
from ilab.core.step import Counts, Resolve, Site, Step


class PreviousRelease(Step):
    """The model that this build is to replace, to be measured beside the new one. Empty: this is the first."""

    type: ClassVar[str] = "previous"
    model: Annotated[str, Resolve("previous")] = ""

    def run(self, *, out: Candidates, site: Site) -> Counts:
        from ilab.packaging.previous import take_previous

        return take_previous(site.locate(self.model) if self.model else None, site.work, out)


class PackageModel(Step):
    """An OCI image layout with the model, its card and its lineage. Refuses a model that the gate did not pass."""

    type: ClassVar[str] = "package"
    version: ClassVar[int] = 3
    name: str
    model_version: str

    def run(
        self,
        model: Checkpoint,
        taxonomy: Taxonomy,
        samples: Samples,
        evaluation: Report,
        gate: Report,
        *,
        out: Package,
        site: Site,
    ) -> Counts:
        from ilab.packaging.stage import package

        reports = {"card": samples.card(), "evaluation": evaluation.report(), "gate": gate.report()}
        return package((self.name, self.model_version), model, taxonomy.leaves(), reports, out, site)


class Register(Step):
    """An entry in the model registry, which lies outside the store: checked again at every run."""

    type: ClassVar[str] = "register"
    version: ClassVar[int] = 2
    name: str
    model_version: str

    def run(self, package: Package, evaluation: Report, gate: Report, *, out: Report, site: Site) -> Counts:
        from ilab.packaging.stage import register

        return register((self.name, self.model_version), package, evaluation.report(), gate.report(), out, site)

    def still_holds(self, out: Report, site: Site) -> bool:
        from ilab.packaging.stage import is_registered

        return is_registered(out.report(), site)
