"""The settings about *where* and *how*: servers, machines, folders. None of it changes a byte of a result."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator


class Section(BaseModel):
    # A value may be a secret given in the wrong place, so no error shows values.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _by_reference(reference: str) -> str:
    # Refused here, before it can be written into a run's settings; the message must not show it.
    if reference and not reference.startswith(("env:", "file:")):
        raise ValueError("a key is given by reference, env:NAME or file:PATH, never itself")
    return reference


Reference = Annotated[str, AfterValidator(_by_reference)]  # env:NAME or file:PATH, which hold a secret; empty: none
UNSERVED = "http://127.0.0.1:0/v1"  # of a model that is served once it is asked: no server can have this address


class Endpoint(Section):
    """An OpenAI-compatible server. ``api_key`` is a reference (``env:NAME`` or ``file:PATH``), never the key itself."""

    url: str = Field(description="base URL, for example http://127.0.0.1:8000/v1")
    model: str = Field(
        "", description="name of the model there; sdg_teacher_model, sdg_verifier_model, eval_judge_model go first"
    )
    api_key: Reference = Field("", description="env:NAME or file:PATH that holds the key; empty for none")
    in_flight: int | None = Field(
        None, gt=0, description="requests under way at once; empty: sdg_batch_size x sdg_num_workers"
    )
    timeout: float = Field(120.0, gt=0, description="seconds a single request may take")
    api: Literal["auto", "chat", "completions"] = Field(
        "auto", description="chat/completions, the older completions, or whichever the server has"
    )
    context: int | None = Field(
        None, gt=0, description="tokens that a prompt and its answer may have; empty: server_ctx_size, or as it tells"
    )
    tokenizer: str = Field(
        "",
        description="folder of the served model's tokenizer.json, to measure prompts; empty: its count or an estimate",
    )
    ca_file: str | None = Field(None, description="certificates to trust besides the system's (PEM)")
    client_cert: str | None = Field(None, description="certificate to show to the server (PEM)")
    client_key: str | None = Field(None, description="its private key, where it is not in the same file (PEM)")
    client_key_password: Reference = Field("", description="env:NAME or file:PATH that holds the key's password")
    insecure: bool = Field(False, description="do not check the server's certificate; for tests only")
    price_read: float | None = Field(None, ge=0, description="price of a million tokens that the model reads")
    price_written: float | None = Field(None, ge=0, description="price of a million tokens that it writes")
    currency: str = Field("USD", description="of the two prices, for people")

    @property
    def pending(self) -> bool:
        """Whether it is a model on this machine that is not served yet."""
        return self.url == UNSERVED

    @field_validator("url")
    @classmethod
    def _without_secret(cls, url: str) -> str:
        if "@" in urlsplit(url).netloc:
            raise ValueError("a URL with a user name or password in it; give a key with where.teacher.api_key")
        return url


class EmbedderWhere(Section):
    """An OpenAI-compatible server of embeddings (``POST /v1/embeddings``), for retrieval."""

    url: str = Field(description="base URL, for example http://127.0.0.1:8000/v1")
    model: str = Field(description="name of the embedding model there")
    api_key: Reference = Field("", description="env:NAME or file:PATH that holds the key; empty for none")
    timeout: float = Field(120.0, gt=0, description="seconds a single request may take")
    ca_file: str | None = Field(None, description="certificates to trust besides the system's (PEM)")

    @field_validator("url")
    @classmethod
    def _without_secret(cls, url: str) -> str:
        if "@" in urlsplit(url).netloc:
            raise ValueError("a URL with a user name or password in it; give a key with where.embedder.api_key")
        return url


class DocumentsWhere(Section):
    mirrors: dict[str, str] = Field(
        default_factory=dict, description="git URL of a document repository: local path or URL to read instead"
    )


class WebWhere(Section):
    """How web pages are fetched, by ``documents crawl`` and for leaves whose documents are addresses."""

    private_hosts: tuple[str, ...] = Field(
        (), description="hosts in private networks (name or address) that may be fetched from all the same"
    )
    ca_file: str | None = Field(None, description="certificates to trust besides the system's")
    timeout: float = Field(30.0, gt=0, description="seconds until a silent server is given up")
    max_bytes: int = Field(50 * 2**20, gt=0, description="the largest page or file that is fetched")


class KubernetesWhere(Section):
    """What the pods of a training job get, for manifests of Kubeflow. Secrets are named here, never written."""

    kubeconfig: str | None = Field(
        None,
        description="file that says how to reach the cluster; empty: $KUBECONFIG, ~/.kube/config, or this pod's own",
    )
    context: str | None = Field(None, description="context of that file; empty: its current one")
    start_seconds: float = Field(
        900.0, gt=0, description="seconds that pods may be unable to start before the job is given up"
    )
    unattended_seconds: float | None = Field(
        None,
        gt=0,
        description="seconds that pods train on when nobody waits for them any more; empty: to the end",
    )
    metrics_port: int | None = Field(
        None, gt=0, le=65535, description="port at which the first of the pods serves /metrics; empty: none"
    )
    namespace: str | None = Field(None, description="namespace of the job; empty: that of whoever applies it")
    image: str | None = Field(None, description="container image with ilab and what training needs")
    runtime: str = Field("torch-distributed", description="training runtime that a TrainJob refers to")
    volumes: dict[str, str] = Field(
        default_factory=dict, description="persistent volume claim: path at which it is mounted"
    )
    secrets: dict[str, str] = Field(
        default_factory=dict, description="environment variable: SECRET/KEY that holds its value"
    )
    image_pull_secrets: tuple[str, ...] = Field((), description="Secrets that the image is pulled with")
    service_account: str | None = Field(None, description="service account of the pods")
    gpus: int = Field(0, ge=0, description="GPUs of each machine; none: the CPU trains")
    gpu_identifier: str = Field("nvidia.com/gpu", description="resource name of a GPU")
    cpus: str = Field(
        "", coerce_numbers_to_str=True, description="cores of each machine, as 8 or 500m; empty: no limit"
    )
    memory: str = Field("", coerce_numbers_to_str=True, description="memory of each machine, as 200Gi; empty: no limit")
    tolerations: tuple[dict[str, Any], ...] = Field((), description="taints that do not matter: a list, or its JSON")
    node_selector: dict[str, str] = Field(
        default_factory=dict, description="labels that machines must have: a mapping, or its JSON"
    )
    env: dict[str, str] = Field(default_factory=dict, description="environment variables; no secrets")

    @property
    def device(self) -> str:
        """The kind of torch device that the pods have; AMD's GPUs are called cuda too."""
        return "cuda" if self.gpus else "cpu"

    @field_validator("tolerations", "node_selector", mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value) if value.strip() else ()
        except ValueError as error:
            raise ValueError(f"no JSON: {error}") from error


class TrainWhere(Section):
    """What training runs on. It changes rounding at most, never what is trained on."""

    processes: int = Field(1, gt=0, description="processes on each machine that train together, one for each device")
    nodes: int = Field(1, gt=0, description="machines that train together, with one file system for the store")
    master: str = Field("", description="host:port of the machine that starts it, at which several meet")
    launcher: Literal["here", "TrainJob", "PyTorchJob"] = Field(
        "here", description="who starts the processes: this command, or pods, by the Kubeflow manifest that it writes"
    )
    submit: bool = Field(
        False, description="make that job in the cluster and wait for it, instead of ending with the manifest"
    )
    state_seconds: float = Field(20.0, ge=0, description="seconds between two states that a stopped run goes on from")
    layout: Literal["auto", "packed", "bucketed"] = Field(
        "auto", description="samples behind one another in a row, or one in a row, those of similar length together"
    )
    activation_checkpointing: bool = Field(False, description="compute activations twice, to hold fewer of them")
    compile: bool = Field(False, description="compile the model's layers: slow to start, faster afterwards")
    kernels: Literal["auto", "torch", "liger"] = Field(
        "auto", description="what computes norms, rotations and gates: PyTorch, or Liger's kernels where they are there"
    )
    forecast: Literal["refuse", "warn"] = Field(
        "refuse", description="what to do before the start where memory will not be enough, by the estimate"
    )
    probe: bool = Field(False, description="correct the estimate by one step of the real model, before the start")
    report_to: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = Field(
        (), description="where else the metrics go; none of them can stop a training"
    )
    report_dir: str | None = Field(None, description="folder that they write to; empty: reports/ in the data home")
    report_online: bool = Field(False, description="let W&B send as it goes; otherwise it keeps runs for `wandb sync`")
    mlflow_uri: str | None = Field(None, description="MLflow's tracking server; empty: a database in report_dir")
    prometheus_file: str | None = Field(None, description="file (*.prom) for the textfile collector of Prometheus")
    kubernetes: KubernetesWhere = KubernetesWhere()

    @property
    def world(self) -> int:
        """All processes that train together."""
        return self.processes * self.nodes

    @field_validator("mlflow_uri")
    @classmethod
    def _without_secret(cls, uri: str | None) -> str | None:
        if uri and "@" in urlsplit(uri).netloc:
            raise ValueError("an address with a password in it; MLflow reads MLFLOW_TRACKING_USERNAME and _PASSWORD")
        return uri

    @model_validator(mode="after")
    def _machines(self) -> TrainWhere:
        host, _, port = self.master.rpartition(":")
        if self.launcher != "here" and self.probe:
            raise ValueError(f"probe tries a step on this machine, but {self.launcher} trains on others; leave it out")
        if self.launcher == "here" and self.submit:
            raise ValueError("submit makes a job in a cluster; say which with where.train.launcher=TrainJob")
        if self.launcher == "here" and self.nodes > 1 and not (host and port.isdecimal()):
            raise ValueError("several machines need where.train.master, host:port of the first")
        return self


class KubeflowWhere(Section):
    """The pipeline server that runs are submitted to, and what a compiled pipeline is made for."""

    host: str = Field(
        "", description="address of the pipeline server's API, as https://ds-pipeline-dspa-….apps.example"
    )
    token: Reference = Field(
        "", description="env:NAME or file:PATH that holds the token; empty: the service account's own"
    )
    ca_file: str = Field("", description="certificates to trust, in place of the system's (PEM)")
    namespace: str = Field("", description="namespace (project) of the runs")
    context: str = Field(
        "", description="context of the kubeconfig by which submit reads the ConfigMap; empty: the current one"
    )
    experiment: str = Field("instructlab", description="experiment that runs belong to")
    image: str = Field("", description="image of the tasks; empty: where.train.kubernetes.image")
    claim: str = Field("", description="volume claim that runs share; empty: a workspace for each run")
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = Field(
        "ReadWriteOnce", description="whether one machine at a time sees the runs' volume, or several that train do"
    )
    store: str = Field("", description="store of the runs, as s3://BUCKET/PREFIX; empty: a folder of the volume")
    storage_secret: str = Field(
        "storage-secret",
        description="Secret with the keys of object storage (store, base model), if there is one",
    )


class EvaluateWhere(Section):
    """How scoring uses the machine."""

    batch: int | Literal["auto"] | None = Field(
        None, description="items that are scored at once; auto: as many as fit; empty: eval_batch_size"
    )
    final_batch: int | Literal["auto"] | None = Field(
        None, description="the same for the final evaluation; empty: final_eval_batch_size"
    )
    final_workers: int | None = Field(
        None, gt=0, description="questions to the judge at once there; empty: final_eval_max_workers"
    )
    mt_bench_workers: int | None = Field(
        None, gt=0, description="questions to the judge at once in mt-bench; empty: mt_bench_max_workers"
    )


class ServeWhere(Section):
    """How models are served: by `ilab model serve`, and for as long as another command needs a server."""

    url: str | None = Field(None, description="base URL of a server that runs already, in place of one of ours")
    backend: Literal["auto", "transformers", "llama-cpp", "vllm", "external"] = Field(
        "auto", description="what serves; auto: by the kind of the model and the machine"
    )
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0: all of this machine's")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0: a free one")
    chat_template: str = Field(
        "",
        description="auto: a built-in one of the family; tokenizer: the model's own; FILE; empty: own, else built-in",
    )
    model_family: str = Field("", description="family whose built-in chat template `auto` takes; empty: by the model")
    max_ctx_size: int | None = Field(
        None, gt=0, description="tokens that a prompt and its answer may have; empty: as many as the model can"
    )
    gpu_layers: int = Field(-1, ge=-1, description="llama-cpp: layers on the GPU; -1: as many as fit")
    gpus: int | None = Field(None, ge=0, description="vllm: GPUs that share the model")
    vllm_args: tuple[str, ...] = Field((), description="vllm: further words of its command line")
    api_key: Reference = Field(
        "", description="env:NAME or file:PATH with the key that requests must bring; empty: none"
    )
    tls_cert: str | None = Field(None, description="certificate to serve https with (PEM)")
    tls_key: str | None = Field(None, description="its private key, where it is not in the same file (PEM)")
    log_file: str | None = Field(None, description="file that what the server says is appended to")

    @property
    def address(self) -> str:
        """Base URL of the server that runs already, or where one of ours listens."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - what listens everywhere
        return self.url or f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    @field_validator("url")
    @classmethod
    def _without_secret(cls, url: str | None) -> str | None:
        if url and "@" in urlsplit(url).netloc:
            raise ValueError("a URL with a user name or password in it; give a key with where.serve.api_key")
        return url

    @field_validator("tls_key")
    @classmethod
    def _with_certificate(cls, key: str | None, info: ValidationInfo) -> str | None:
        if key and not info.data.get("tls_cert"):
            raise ValueError("a key needs its certificate, where.serve.tls_cert")
        return key


class PackageWhere(Section):
    """Where packages go, and who is told of them."""

    push: str = Field("", description="registry address or folder that packages go to; empty: output_oci_model_uri")
    logins: str = Field(
        "", description="docker config file, or folder of a mounted secret; empty: output_oci_registry_secret"
    )
    sign_key: Reference = Field(
        "", description="env:NAME or file:PATH of the private key that signs packages (EC, PEM)"
    )
    sign_key_password: Reference = Field("", description="env:NAME or file:PATH of that key's password")
    model_registry: str = Field(
        "", description="URL of a Kubeflow Model Registry that is told; empty: output_model_registry_api_url"
    )
    model_registry_token: Reference = Field("", description="env:NAME or file:PATH of its token")
    model_registry_name: str = Field(
        "", description="what the dashboard calls that registry; empty: output_model_registry_name, else by its address"
    )
    mlflow: str = Field("", description="URL of an MLflow server whose registry is told")
    mlflow_token: Reference = Field("", description="env:NAME or file:PATH of its token")

    @field_validator("push", "model_registry", "mlflow")
    @classmethod
    def _without_secret(cls, url: str) -> str:
        if "@" in urlsplit(url).netloc:
            raise ValueError("an address with a user name or password in it; give a reference instead")
        return url


class MonitoringWhere(Section):
    """What other programs are told of a run while it goes on. Nothing by default, and nothing to anybody else."""

    port: int | None = Field(
        None, ge=0, le=65535, description="port at which a run serves /metrics for Prometheus; 0: a free one"
    )
    address: str = Field("127.0.0.1", description="address that it listens at; 0.0.0.0 in a pod")
    textfile: str | None = Field(None, description="file (*.prom) of the same metrics, for a node exporter to collect")
    stuck_minutes: float = Field(30.0, gt=0, description="minutes of silence after which a step counts as stuck")
    linger: float = Field(
        0.0, ge=0, description="seconds that /metrics stays at most after the end, until the last figures are collected"
    )


class Where(Section):
    """Everything about *where*: none of it is part of any step's identity."""

    store: str | None = Field(None, description="folder that keeps all artifacts, or s3://BUCKET/PREFIX")
    s3_endpoint: str | None = Field(None, description="address of an object store that is not AWS's")
    cache: str | None = Field(None, description="folder for git clones and other things that can be fetched again")
    registry: str | None = Field(
        None, description="the model registry: a file, or s3://BUCKET/PREFIX/NAME; empty: beside, or in, the store"
    )
    datasets: str | None = Field(
        None,
        description="folder that data generate writes files to; empty: outside of projects, datasets/ in the data home",
    )
    device: str = Field("auto", description="auto, cpu, cuda or mps")
    threads: int = Field(1, gt=0, description="threads one training or evaluation uses; more is slower for tiny models")
    jobs: int = Field(2, gt=0, description="independent steps that may run at once")
    teacher: Endpoint | None = Field(None, description="the server that plays the teacher")
    train: TrainWhere = TrainWhere()
    monitoring: MonitoringWhere = MonitoringWhere()
    verifier: Endpoint | None = Field(None, description="the server of a second teacher, for the block `agreement`")
    evaluate: EvaluateWhere = EvaluateWhere()
    serve: ServeWhere = ServeWhere()
    judge: Endpoint | None = Field(None, description="the server of the model that marks answers")
    embedder: EmbedderWhere | None = Field(None, description="the server that makes vectors of texts, for retrieval")
    documents: DocumentsWhere = DocumentsWhere()
    kubeflow: KubeflowWhere = KubeflowWhere()
    package: PackageWhere = PackageWhere()
    web: WebWhere = WebWhere()


class Rag(Section):
    """Retrieval: where passages are kept, and how they are cut and found."""

    store: str | None = Field(
        None, description="file of the document store; empty: .ilab/embeddings.db, or embeddings.db in the data home"
    )
    collection: str = Field("ilab", min_length=1, description="collection in the store")
    converted: str | None = Field(
        None,
        description="folder of converted documents; empty: .ilab/converted_documents, or the same in the data home",
    )
    chunk_tokens: int = Field(200, gt=0, description="most tokens of a passage, estimated")
    top_k: int = Field(3, gt=0, description="passages that are found for a question")
