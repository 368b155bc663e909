"""llama-cpp-python's quantiser as a program: FILE NEW-FILE TYPE THREADS."""

from __future__ import annotations

import ctypes
import sys

from ilab.packaging.gguf.quantisation import file_type


def main(source: str, target: str, kind: str, threads: str) -> int:
    """Returns llama.cpp's own code, 0 for success."""
    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = file_type(kind).number
    settings.nthread = int(threads)
    code: int = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(settings))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
