"""``ilab model download``: models from a hub, a registry, a bucket or a folder into the models folder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.config import Loaded
    from ilab.profiles import Role
    from ilab.transfer.choose import Choice
    from ilab.transfer.fetch import Plan
    from ilab.transfer.open import Access
    from ilab.transfer.shelf import Shelf

MODEL_DIR = click.option(
    "--model-dir", "-md", metavar="DIR", help="The models folder.  [default: ~/.cache/instructlab/models]"
)
HF_TOKEN = click.option(
    "--hf-token",
    metavar="REF",
    default="",
    help="env:NAME or file:PATH that holds the hub's token.  [default: HF_TOKEN]",
)
S3_ENDPOINT = click.option("--s3-endpoint", metavar="URL", default="", help="Of a store that is not AWS's.")
Wanted = tuple[str, str, str]  # place, release, file
FETCHED: tuple[Role, ...] = ("teacher", "student")  # what is downloaded where nothing is named
SHOWN = 5  # files left out that are named


@click.command()
@click.option(
    "--repository",
    "-rp",
    "repositories",
    multiple=True,
    metavar="PLACE",
    help="OWNER/NAME[::REVISION], oci://…, s3://…",
)
@click.option("--release", "-rl", "releases", multiple=True, metavar="REV", help="Branch, tag or commit.")
@click.option("--filename", "filenames", multiple=True, metavar="FILE", help="Which GGUF file of the repository.")
@MODEL_DIR
@HF_TOKEN
@S3_ENDPOINT
@click.option("--dry-run", is_flag=True, help="Show what would be downloaded: size, licence, files.")
@click.pass_obj
def download(options: Options, /, model_dir: str | None, dry_run: bool, **given: Any) -> None:
    """Download models; without --repository, the configured teacher and student, or those that fit this machine.

    PLACE is OWNER/NAME on the Hugging Face hub (or HF_ENDPOINT), oci://HOST/PATH:TAG in a registry, s3://BUCKET/PREFIX,
    or file:///FOLDER. --release and --filename belong to the repositories in their order. What was interrupted goes on
    where it was; every file is checked.

    \b
    Examples:
      ilab model download --repository ibm-granite/granite-3.3-2b-instruct
      ilab model download --repository OWNER/NAME-GGUF --filename NAME-Q4_K_M.gguf
      ilab model download --repository oci://registry.example.com/team/model:1.0 --dry-run
    """
    from ilab.cli.model_list import warn_of_recall
    from ilab.transfer.open import Access

    loaded = options.load()
    shelf = shelf_at(options, model_dir)
    access = Access(loaded.config.where.web, given["hf_token"], given["s3_endpoint"], options.directory)
    if given["repositories"]:
        wanted = dict.fromkeys(_wanted(given["repositories"], given["releases"], given["filenames"]), "")
    elif given["releases"] or given["filenames"]:
        raise InputError("which repository is meant?", where="--repository", hint="add --repository OWNER/NAME")
    else:
        wanted = _fitting(loaded)
    results = []
    for one, origin in wanted.items():
        try:
            results.append(_download(one, shelf, access, dry_run, options.as_json))
        except InputError as error:  # who typed no name has to learn where it stands
            raise _with_origin(error, origin) from error
    for result in results:
        result["recalled"] = warn_of_recall(options, result["revision"])
    options.result(results)
    if not options.as_json and not dry_run and results:
        click.echo(f"\nNext: ilab model chat --model-path {shlex.quote(_short(results[-1], model_dir))}")


def shelf_at(options: Options, model_dir: str | None) -> Shelf:
    """The models folder: as given, relative to where the command works, or the usual one."""
    from ilab.core.files import expanded
    from ilab.transfer.shelf import Shelf, models_home

    return Shelf((options.directory / expanded(model_dir)).resolve() if model_dir else models_home())


def _fitting(loaded: Loaded) -> dict[Wanted, str]:
    """The teacher and the student of the configuration, else of the profile that fits this machine; a line for each.

    With each goes what names it. A model that is a folder of this machine already is named and left where it is.
    """
    from ilab.profiles import profile_of, wanted

    chosen = wanted(loaded)
    models = {role: chosen[role] for role in FETCHED if role in chosen}
    if not models:
        raise InputError(
            "neither the configuration nor its profile names a teacher or a student",
            hint="name what to download: --repository OWNER/NAME",
        )
    recommended = profile_of(loaded)
    found: dict[Wanted, str] = {}  # the same model may play both
    for role, model in models.items():
        here = loaded.path(model.repository).is_dir()
        click.echo(f"{role}: {f'{model.repository}, here already' if here else model}", err=True)
        if not here:
            found[model.repository, "", model.file] = _origin(loaded, role, recommended.models.get(role) == model)
    return found


def _origin(loaded: Loaded, role: Role, recommended: bool) -> str:
    """What names the model of ``role``, and the line that names another."""
    from ilab.profiles import profile_of

    setting = {"teacher": "models.teacher", "student": "parameters.sdg_base_model"}[role]
    if recommended:
        named = f"profile {profile_of(loaded).name} has it as its {role} (see: ilab config profiles)"
    else:
        named = f"{setting} names it ({loaded.origins.get(setting, 'default')})"
    return f"{named}; to name another one: ilab config set {setting} OWNER/NAME"


def _with_origin(error: InputError, origin: str) -> InputError:
    hint = "; ".join(part for part in (error.hint, origin) if part)
    return InputError(error.message, where=error.where, hint=hint)


def _wanted(repositories: Sequence[str], releases: Sequence[str], filenames: Sequence[str]) -> list[Wanted]:
    """What to download. Raises ``InputError`` where the options do not pair."""
    places = list(repositories)
    if len(places) == 1 and len(filenames) > 1:  # several files of one repository
        places *= len(filenames)
    return list(
        zip(places, _spread(releases, places, "--release"), _spread(filenames, places, "--filename"), strict=True)
    )


def _spread(given: Sequence[str], places: Sequence[str], option: str) -> list[str]:
    if not given:
        return [""] * len(places)
    if len(set(places)) == 1 and len(given) == 1:
        return [*given] * len(places)
    if len(given) != len(places):
        message = f"{len(places)} times --repository and {len(given)} times {option} do not pair"
        hint = "give it once for each repository, in the same order, or use OWNER/NAME::REVISION"
        raise InputError(message, where=option, hint=hint)
    return list(given)


def _download(wanted: Wanted, shelf: Shelf, access: Access, dry_run: bool, as_json: bool) -> dict[str, Any]:
    """One model: what it is, then the download, unless it is a dry run."""
    from ilab.cli.live import view
    from ilab.core.events import Bus
    from ilab.transfer.address import parse
    from ilab.transfer.choose import choose
    from ilab.transfer.fetch import fetch, plan
    from ilab.transfer.open import open_source

    place, release, filename = wanted
    with open_source(parse(place, release), access) as source:
        choice = choose(source.listing(), filename)
        planned = plan(choice, shelf)
        result = _told(choice, planned)
        if dry_run or planned.present:
            if not as_json:
                _show(choice, planned, files=dry_run)
            return result
        _show(choice, planned, files=False, err=True)
        with view() as shown:
            emit = Bus([shown]).for_step("download")
            emit.started()
            done = fetch(source, choice, shelf, emit)
            emit.finished(state="run", counts={"bytes": done.received})
    if not as_json:
        click.echo(f"{done.model.name}: {size_text(done.size)} in {done.model.path}")
    return {**result, "present": True, "received": done.received}


def _told(choice: Choice, planned: Plan) -> dict[str, Any]:
    listing = choice.listing
    return {
        "name": listing.name,
        "source": listing.source,
        "revision": listing.revision,
        "licence": listing.licence,
        "bytes": listing.size,
        "missing": planned.missing,
        "present": planned.present,
        "path": str(planned.place),
        "files": {file.name: file.size for file in listing.files},
        "left_out": dict(choice.left_out),
    }


def _show(choice: Choice, planned: Plan, *, files: bool, err: bool = False) -> None:
    from ilab.cli.findings import printable

    listing = choice.listing
    licence = f"licence {listing.licence}" if listing.licence else "no licence is named"
    head = f"{listing.name}: {size_text(listing.size)} in {len(listing.files)} files, {licence}"
    if planned.present:
        lines = [f"{head}; it is here already: {planned.place}"]
    else:
        begun = f"; {size_text(planned.missing)} of it still to come" if planned.missing < planned.size else ""
        lines = [f"{head}{begun}", f"  from {listing.source} {listing.revision[:19]}", f"  to   {planned.place}"]
    if files:
        lines += [f"  {size_text(file.size):>10}  {file.name}" for file in listing.files]
    lines += [f"  note: {note}" for note in choice.notes]
    told = [one for one in choice.left_out if files or one[1] != "not needed"]
    lines += [f"  left out: {name} ({why})" for name, why in told[:SHOWN]]
    lines += [f"  left out: {len(told) - SHOWN} more"] * (len(told) > SHOWN)
    for line in lines:
        click.echo(printable(line), err=err)


def size_text(count: int) -> str:
    """Bytes for people, with factors of 1000, as disks and hubs have them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count} B"


def _short(result: dict[str, Any], model_dir: str | None) -> str:
    return str(result["path"] if model_dir else result["name"])


__all__ = ["download"]
