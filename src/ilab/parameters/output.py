"""Of what comes out: the registered name, where the package goes, and what is kept beside it."""

from __future__ import annotations

from ilab.parameters.parameter import Parameter, one_of, secret_name, version

OUTPUT: tuple[Parameter, ...] = (
    Parameter("output_model_name", str, "instructlab-model", "registered name"),
    Parameter("output_model_version", str, "0.1.0", "registered version", valid="semantic version", check=version),
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
