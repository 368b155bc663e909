"""xllamacpp's server for one file, as a program: FILE PORT CONTEXT THREADS. It ends with its standard input."""

from __future__ import annotations

import sys


def main(path: str, port: str, context: str, threads: str) -> None:
    """Serve until standard input is closed, which it is when the parent is gone, however it went."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(port)
    parameters.n_ctx = int(context)
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = int(threads)
    parameters.cpuparams_batch.n_threads = int(threads)
    parameters.n_gpu_layers = 0
    # Keys, values and attention in 32 bits, or the differences would be those of the server.
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.cache_ram_mib = 0
    server = xllamacpp.Server(parameters)
    sys.stdin.read()
    del server


if __name__ == "__main__":
    main(*sys.argv[1:])
