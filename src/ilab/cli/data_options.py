"""Options of InstructLab's ``data generate`` that have no effect here, as two tables: taken with a note, or refused.

What only old scripts pass and what changes no result is taken; where a person would expect an effect, the option is
refused with what to use instead.
"""

from __future__ import annotations

from ilab.cli.old_options import OldOptions

TAKEN: dict[str, str] = {
    "--num-cpus": "requests are made by one process; sdg_batch_size and sdg_num_workers say how many are under way",
    "--yaml-rules": "the rules for qna.yaml files are fixed (ilab taxonomy check)",
}
REFUSED: dict[str, str] = {
    "--enable-serving-output": "start the server yourself and give its address with --endpoint-url",
    "--gpus": "start the server yourself with as many as it needs and give its address with --endpoint-url",
    "--max-num-tokens": "set max_tokens in the blocks of a flow of your own, and give its folder with --pipeline",
    "--rouge-threshold": "give -p sdg_near_duplicates=0.8; what was left out: ilab data show --verdict rejected",
    "--student-model-id": "give the system message with --system-prompt",
    "--teacher-model-id": "give the teacher's served name with --model and its address with --endpoint-url",
}
FLAGS = {"--enable-serving-output"}


upstream_options = OldOptions(TAKEN, REFUSED, frozenset(FLAGS))
