"""Schemas of the kinds that Kubernetes itself does not know, as strict as the fields that we use.

Written by hand from their published definitions: github.com/prometheus-operator/prometheus-operator (v0.85, ServiceMonitor
and PrometheusRule), github.com/opendatahub-io/data-science-pipelines-operator (DataSciencePipelinesApplication v1). A
field that is not here has to be looked up there first.
"""

from __future__ import annotations

from typing import Any


def exact(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
TRUTH = {"type": "boolean"}
DURATION = {"type": "string", "pattern": r"^(\d+(ms|s|m|h|d|w|y))+$"}
QUANTITY = {"type": "string", "pattern": r"^\d+(\.\d+)?([KMGTPE]i?|m|k)?$"}
MAP = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = exact(("name",), name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}, labels=MAP)


def kind(version: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return exact(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": version},
        kind={"const": name},
        metadata=METADATA,
        spec=spec,
    )


SECRET = exact(("secretName", "accessKey", "secretKey"), secretName=TEXT, accessKey=TEXT, secretKey=TEXT)
STORAGE = exact(
    minio=exact(("image",), deploy=TRUTH, image=TEXT, pvcSize=QUANTITY, bucket=TEXT, storageClassName=TEXT),
    externalStorage=exact(
        ("bucket", "host", "scheme", "s3CredentialsSecret"),
        bucket=TEXT,
        host=TEXT,
        port={"type": "string"},
        scheme={"enum": ["http", "https"]},
        region=TEXT,
        basePath=TEXT,
        s3CredentialsSecret=SECRET,
    ),
)
SCHEMAS = {
    "DataSciencePipelinesApplication": kind(
        "datasciencepipelinesapplications.opendatahub.io/v1",
        "DataSciencePipelinesApplication",
        exact(
            ("objectStorage",),
            dspVersion={"const": "v2"},
            podToPodTLS=TRUTH,
            apiServer=exact(deploy=TRUTH, enableSamplePipeline=TRUTH),
            persistenceAgent=exact(deploy=TRUTH, numWorkers={"type": "integer"}),
            scheduledWorkflow=exact(deploy=TRUTH, cronScheduleTimezone=TEXT),
            workflowController=exact(deploy=TRUTH),
            database=exact(
                mariaDB=exact(deploy=TRUTH, pipelineDBName=TEXT, pvcSize=QUANTITY, username=TEXT, storageClassName=TEXT)
            ),
            objectStorage={**STORAGE, "minProperties": 1, "maxProperties": 1},
        ),
    ),
    "ServiceMonitor": kind(
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        exact(
            ("selector", "endpoints"),
            selector=exact(("matchLabels",), matchLabels=MAP),
            endpoints={
                "type": "array",
                "minItems": 1,
                "items": exact(
                    ("port",),
                    port=TEXT,
                    path=TEXT,
                    interval=DURATION,
                    scrapeTimeout=DURATION,
                    scheme={"enum": ["http"]},
                ),
            },
        ),
    ),
    "PrometheusRule": kind(
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        exact(
            ("groups",),
            groups={
                "type": "array",
                "minItems": 1,
                "items": exact(
                    ("name", "rules"),
                    name=TEXT,
                    interval=DURATION,
                    rules={
                        "type": "array",
                        "minItems": 1,
                        "items": exact(
                            ("alert", "expr", "labels", "annotations"),
                            alert={"type": "string", "pattern": "^Ilab[A-Za-z]+$"},
                            expr=TEXT,
                            **{"for": DURATION},
                            labels=exact(("severity",), severity={"enum": ["critical", "warning", "info"]}),
                            annotations=exact(("summary", "description"), summary=TEXT, description=TEXT),
                        ),
                    },
                ),
            },
        ),
    ),
}
