"""Logits from a stock libllama under a control vector, by its own API and nothing of cogit.

Run as ``python _stock_llama.py MODEL.gguf VECTOR.gguf TOKENS OUT.npy`` in a process of its own,
with LLAMA_CPP_LIB_PATH naming the folder of the library: a process can hold one libllama.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
from gguf import GGUFReader
from llama_cpp import llama_cpp as api


def main(model_path: str, vector_path: str, tokens: str, out: str) -> None:
    assert not hasattr(api._lib, "cogit_abi_version"), "this is cogit's library"
    api.llama_backend_init()
    model = api.llama_model_load_from_file(model_path.encode(), api.llama_model_default_params())
    parameters = api.llama_context_default_params()
    parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = 64, 64, 64
    parameters.n_threads = parameters.n_threads_batch = 1
    parameters.flash_attn_type = parameters.type_k = parameters.type_v = 0  # off, f32, f32
    context = api.llama_init_from_model(model, parameters)
    width, depth = api.llama_model_n_embd(model), api.llama_model_n_layer(model)
    # As common/common.cpp loads it: direction.i at offset (i - 1) * width.
    data = np.zeros((depth - 1, width), np.float32)
    for tensor in GGUFReader(vector_path).tensors:
        data[int(tensor.name.removeprefix("direction.")) - 1] = tensor.data
    pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    assert api.llama_set_adapter_cvec(context, pointer, data.size, width, 1, depth) == 0
    ids = [int(token) for token in tokens.split(",")]
    batch: Any = api.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i] = token, i
        batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, True
    assert api.llama_decode(context, batch) == 0
    n_vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
    logits = np.ctypeslib.as_array(api.llama_get_logits(context), (len(ids), n_vocab))
    np.save(out, logits)


if __name__ == "__main__":
    main(*sys.argv[1:])
