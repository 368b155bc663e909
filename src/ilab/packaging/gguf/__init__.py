"""A Hugging Face directory as one GGUF file, which llama.cpp and what is built on it (Ollama, LM Studio …) read.

    quantisation    the types of file, what each may change, and who writes it
    families        config.json -> what GGUF calls it, and which tensor goes where
    vocabulary      tokenizer.json, the special tokens, the chat template -> GGUF
    origin          name, licence and where the model comes from
    weights         the safetensors, one tensor at a time
    llamacpp        llama.cpp, where it is installed: its quantiser, its tokenizer, its logits
    parity          does the file say what the model says?
    export          all of it in order; the file gets its name last

The file is read again by :mod:`ilab.models.gguf`, which shares no table of tensors with the writer.

Nothing is guessed: an architecture, a scaling, a tokenizer or an activation that is not in a table here is refused.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""
