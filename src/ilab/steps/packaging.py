"""Steps that hand models on, and take over those that were handed on before. See :mod:`ilab.steps`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from ilab.artifacts import Candidates, Checkpoint, Package, Report, Samples, Taxonomy
from ilab.core.step import Counts, Resolve, Site, Step


class PreviousRelease(Step):
    """The model that this build is to replace, to be measured beside the new one. Empty: this is the first."""

    type: ClassVar[str] = "previous"
    model: Annotated[str, Resolve("previous")] = ""

    def run(self, *, out: Candidates, site: Site) -> Counts:
        from ilab.packaging.previous import take_previous

        return take_previous(site.locate(self.model) if self.model else None, site.fetch, site.work, out)


class PackageModel(Step):
    """An OCI image layout with the model, its card, lineage, probe and bill of materials. Refuses a model that the gate
    did not pass. ``form`` is ``modelcar`` or ``modelpack``; ``license`` is empty for that of the base, ``gguf`` the
    type of a GGUF file that is added. ``models`` are the ``tuned`` one and its ``base``."""

    type: ClassVar[str] = "package"
    version: ClassVar[int] = 4
    name: str
    model_version: str
    form: Literal["modelcar", "modelpack"] = "modelcar"
    base_image: Annotated[str, Resolve("image")] = ""
    license: str = ""
    gguf: str = ""

    def run(
        self,
        models: Mapping[str, Checkpoint],
        taxonomy: Taxonomy,
        samples: Samples,
        evaluation: Report,
        gate: Report,
        *,
        out: Package,
        site: Site,
    ) -> Counts:
        from ilab.packaging.stage import Wanted, package

        reports = {"card": samples.card(), "evaluation": evaluation.report(), "gate": gate.report()}
        wanted = Wanted(self.name, self.model_version, self.form, self.base_image, self.license, self.gguf)
        return package(wanted, models, taxonomy.leaves(), reports, out, site)


class Changelog(Step):
    """What this build taught the model beside the ``release`` before it (its digest; empty: the first), per leaf.

    ``how`` it was built, on the release or from the base, has a ``reason``; ``leaves`` maps each to a hash of all it
    teaches, and of them some were ``added`` or ``changed`` since the release; ``removed`` are gone. The result is the
    gate's decision with the changelog in it, so whoever reads the one can have the other.
    """

    type: ClassVar[str] = "changelog"
    cheap: ClassVar[bool] = True
    release: Annotated[str, Resolve("previous")] = ""
    how: Literal["increment", "full"]
    reason: str
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    leaves: dict[str, str]

    def run(self, evaluation: Report, gate: Report, *, out: Report, site: Site) -> Counts:
        from ilab.packaging.changelog import write_changelog

        return write_changelog(self, evaluation.report(), gate.report(), out, site)


class Push(Step):
    """The package at the place that was asked for, signed if there is a key, and read back: checked again at every run.
    Where that is, is no part of what it is; without a place it does nothing, and says so."""

    type: ClassVar[str] = "push"

    def run(self, package: Package, gate: Report, *, out: Report, site: Site) -> Counts:
        from ilab.packaging.stage import push

        return push(package, gate.report(), out, site)

    def still_holds(self, out: Report, site: Site) -> bool:
        from ilab.packaging.stage import is_pushed

        return is_pushed(out.report(), site)


class Register(Step):
    """An entry in the model registry, which lies outside the store: checked again at every run. Other registries that
    were asked for are told as well."""

    type: ClassVar[str] = "register"
    version: ClassVar[int] = 3
    name: str
    model_version: str

    def run(
        self, package: Package, pushed: Report, evaluation: Report, gate: Report, *, out: Report, site: Site
    ) -> Counts:
        from ilab.packaging.stage import register

        return register((self.name, self.model_version), package, evaluation.report(), gate.report(), out, site)

    def still_holds(self, out: Report, site: Site) -> bool:
        from ilab.packaging.stage import is_registered

        return is_registered(out.report(), site)
