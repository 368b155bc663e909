"""Parameters in files: variables, ConfigMaps, kustomizations; and what is wrong in them, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ilab.errors import InputError, InputErrors
from ilab.parameters import TABLE, collect
from ilab.parameters.files import as_variables, read_parameters

CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: instructlab-pipeline-params}
data:
  sdg_scale_factor: "8"
  output_save_checkpoints: true
"""
KUSTOMIZATION = """\
resources: [../../base]
generatorOptions: {disableNameSuffixHash: true}
configMapGenerator:
- name: another
  literals: [a=b]
- name: instructlab-pipeline-params
  behavior: merge
  literals:
  - sdg_batch_size=32
  - 'k8s_worker_resources={"cpu":"8","memory":"200Gi"}'
"""


def test_variables_as_a_shell_has_them(tmp_path: Path) -> None:
    file = tmp_path / "p.env"
    file.write_text(
        '# the model\nSDG_BASE_MODEL="s3://bucket/base"   # here\n\nexport train_num_workers=4\n'
        'K8S_WORKER_RESOURCES=\'{"cpu":"8"}\'\nSDG_TEACHER_MODEL="$HOME"\n'
    )
    assert read_parameters(file) == {
        "sdg_base_model": "s3://bucket/base",
        "train_num_workers": "4",
        "k8s_worker_resources": '{"cpu":"8"}',
        "sdg_teacher_model": "$HOME",
    }


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "p.env"
    file.write_text("SDG_SCALE_FACTOR\nA=1\nA=2\nB='open\nC=1 2\n")
    with pytest.raises(InputErrors) as caught:
        read_parameters(file)
    assert [one.where.rpartition(":")[2] for one in caught.value.errors] == ["1", "3", "4", "5"]
    with pytest.raises(InputErrors) as caught:
        collect({str(file): {"sdg_scale": "3", "train_num_workers": "x", "k8s_tolerations": "{}"}})
    assert [one.hint for one in caught.value.errors] == ["did you mean 'sdg_scale_factor'?", "", "valid: JSON list"]


def test_what_a_cluster_has(tmp_path: Path) -> None:
    file = tmp_path / "configmap.yaml"
    file.write_text(CONFIG_MAP)
    assert read_parameters(file) == {"sdg_scale_factor": "8", "output_save_checkpoints": "true"}
    file.write_text(KUSTOMIZATION)
    given = collect({"overlay": read_parameters(file)})
    assert given["sdg_batch_size"].value == 32
    assert given["k8s_worker_resources"].value == '{"cpu":"8","memory":"200Gi"}'
    for text, message in (("kind: Secret\n", "no parameters"), ("a: [\n", "not readable YAML")):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            read_parameters(file)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "all.env"
    for environment in ("dev", "prod"):
        values = {name: one.value for name, one in collect({}, environment).items()}  # type: ignore[arg-type]
        values["document_policy"] = "a 'b' \"c\" $d \\ #e"
        file.write_text(as_variables(values))
        found = read_parameters(file)
        assert {name: one.value for name, one in collect({"file": found}).items()} == {
            **{parameter.name: parameter.default for parameter in TABLE},
            **{name: value for name, value in values.items() if value is not None},
        }


def test_the_two_environments() -> None:
    dev, prod = collect({}), collect({}, "prod")
    assert (dev["train_num_workers"].value, prod["train_num_workers"].value) == (2, 4)
    assert (prod["train_num_workers"].origin, prod["train_seed"].origin) == ("environment prod", "default")
    assert collect({"-p": {"train_num_workers": 6}}, "prod")["train_num_workers"].value == 6
