"""Models come from somewhere and go somewhere: a hub, a registry, a bucket, a folder.

    address.py        what a person writes: OWNER/NAME::REV, hf://, oci://, s3://, file://
    huggingface.py registry.py s3.py files.py     one `Source` each: a listing of files, and bytes from any offset on
    choose.py         which of the listed files are taken: weights as safetensors or GGUF, no pickles, no code
    fetch.py          the one way of downloading: room on the disk, resume, checksums, then one rename
    shelf.py          the models folder: what lies there, where it came from, when it was used
    push.py           the way out

Nothing that a server says is trusted: names may not leave the folder, contents must have the digest that was announced,
a token goes to the server it was given for and not where that redirects to.
"""
