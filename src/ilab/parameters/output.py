"""Of what comes out: the registered name, where the package goes, and what is kept beside it."""

from __future__ import annotations

from ilab.parameters.parameter import Parameter, one_of, secret_name, version

OUTPUT: tuple[Parameter, ...] = (
    Parameter("output_model_name", str, "instructlab-model", "registered name"),
    Parameter("output_model_version", str, "0.1.0", "registered version", valid="semantic version", check=version),
    Parameter(
        "output_format",
        str,
        "modelcar",
        "form of the package: modelcar (KServe: a container image with the files below /models), modelpack (CNCF)",
        valid="modelcar, modelpack",
        check=one_of("modelcar", "modelpack"),
    ),
    Parameter(
        "output_modelcar_base_image",
        str,
        "",
        "image that a modelcar stands on: HOST/PATH:TAG, or the folder of an image layout; empty: none",
    ),
    Parameter(
        "output_license", str, "", "licence of the model (SPDX identifier); empty: that of the base model's card"
    ),
    Parameter(
        "output_gguf", str, "", "add a GGUF file of this type (q8_0, f16, …) and a Modelfile for Ollama; empty: none"
    ),
    Parameter(
        "output_oci_model_uri",
        str,
        "",
        "where the package is pushed: oci://HOST/PATH:TAG, HOST/PATH:TAG, or a folder; empty: nowhere",
        "where",
        required=True,
    ),
    Parameter("output_model_registry_api_url", str, "", "Kubeflow Model Registry that is told; empty: none", "where"),
    Parameter(
        "output_model_registry_name",
        str,
        "",
        "name of that registry in the dashboard, which links a run's model to it; empty: what its address begins with",
        "where",
        "name of an object of Kubernetes, or nothing",
        secret_name,
    ),
    Parameter(
        "output_oci_registry_secret",
        str,
        "oci-registry-secret",
        "Secret with the registry's credentials; outside of a cluster Docker's own file has them",
        "where",
        "name of a Secret, or nothing",
        secret_name,
    ),
    Parameter(
        "output_save_checkpoints",
        bool,
        False,
        "keep every checkpoint that training saved beside the run's report, not the chosen ones alone",
        "where",
    ),
    Parameter(
        "output_save_metrics", bool, True, "write the figures of the evaluation as a table beside the report", "where"
    ),
    Parameter(
        "output_metrics_format",
        str,
        "json",
        "form of that table; the report's own JSON is always there",
        "where",
        "csv, json",
        one_of("csv", "json"),
    ),
)
