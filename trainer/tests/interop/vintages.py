#!/usr/bin/env python3
"""SAEs as former versions of the tools saved them: makes trainer/tests/fixtures/vintages.

    python vintages.py CLONES     CLONES holds clones with their history, named dictionary_learning
                                  (saprmarks/dictionary_learning), sparsify (EleutherAI/sparsify) and Language-Model-SAEs
                                  (OpenMOSS/Language-Model-SAEs)

A case is a folder as in formats.py: the SAE, and expected.safetensors with x, feature_acts and x_hat. The classes are run
from the source of the commit that is named here, without the rest of their packages; only what they inherit and import is
replaced (`load`). SAELens' former versions need former versions of TransformerLens, and OpenAI's is no package: for these
the formula stands in a function here, with the commit and the lines that it follows. Needs torch, numpy, safetensors and
einops; the files were made with torch's Linux x86-64 wheel.
"""
import json
import math
import subprocess
import sys
import types
from pathlib import Path

import torch
import torch.nn as nn
from safetensors.torch import save_file

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "vintages"
D_IN, D_SAE, N, K = 10, 24, 12, 4


def normal(*shape, scale=1.0, seed=[1000]):
    seed[0] += 1
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed[0]))


def source(clone, commit, path):
    command = ["git", "-C", str(Path(sys.argv[1]) / clone), "show", f"{commit}:{path}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def load(text, *classes):
    """Classes of a file, run alone: the file's class bodies, without its imports and decorators of types."""
    import ast

    tree = ast.parse(text)
    wanted = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in classes]
    for node in wanted:
        node.body = [item for item in node.body if not decorated(item, "overload")]
    scope = dict(t=torch, torch=torch, nn=nn, Dictionary=type("Dictionary", (), {}), init=nn.init, Tensor=torch.Tensor)
    import typing
    scope |= {name: getattr(typing, name) for name in ("Optional", "Union", "Literal", "Any", "cast", "NamedTuple")}
    tree.body = [ast.parse("from __future__ import annotations").body[0], *wanted]
    exec(compile(tree, "vintage", "exec"), scope)
    return [scope[name] for name in classes]


def decorated(node, name):
    import ast

    return any(isinstance(it, ast.Name) and it.id == name for it in getattr(node, "decorator_list", []))


def fill(module):
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and tensor.dim() > 0:
            tensor.copy_(normal(*tensor.shape, scale=0.4))
    return module


def write(path, value):
    path.write_text(json.dumps(value))


def dictionary_learning(commit, path, name, trainer, buffer=None, args=(), file="ae.pt"):
    def make(root):
        (cls,) = load(source("dictionary_learning", commit, path), name)
        dictionary = fill(cls(D_IN, D_SAE, *args))
        (root / "sae").mkdir()
        torch.save(dictionary.state_dict(), root / "sae" / file)
        write(root / "sae/config.json", {"trainer": trainer, "buffer": buffer or {"d_submodule": D_IN, "ctx_len": 64}})
        return "sae", lambda x: (dictionary.encode(x), dictionary(x))

    return make


def batch_topk(root):
    """A BatchTopKSAE at b5821fd~2, before thresholds were saved: there is nothing that refract could compute with it."""
    (cls,) = load(source("dictionary_learning", "b5821fd~2", "trainers/batch_top_k.py"), "BatchTopKSAE")
    (root / "sae").mkdir()
    torch.save(fill(cls(D_IN, D_SAE, K)).state_dict(), root / "sae/ae.pt")
    write(root / "sae/config.json", {"trainer": dict(trainer_class="TrainerBatchTopK", dict_class="BatchTopKSAE",
                                                     activation_dim=D_IN, dict_size=D_SAE, k=K)})
    return "sae", None


def backup(root):
    """What dictionary_learning saves as ae.pt every `backup_steps` of a training (training.py at 60ec6bf)."""
    (cls,) = load(source("dictionary_learning", "b5821fd", "trainers/top_k.py"), "AutoEncoderTopK")
    (root / "sae").mkdir()
    state = {"step": 5, "ae": fill(cls(D_IN, D_SAE, K)).state_dict(), "optimizer": {"state": {}, "param_groups": []},
             "config": {"k": K}, "norm_factor": 2.0}
    torch.save(state, root / "sae/ae.pt")
    write(root / "sae/config.json", {"trainer": dict(trainer_class="TopKTrainer", dict_class="AutoEncoderTopK",
                                                     activation_dim=D_IN, dict_size=D_SAE, k=K)})
    return "sae", None


def sparsify_transcoder(root):
    """sparsify before f02711e (February 2025): `transcode` is in the run's config, and the encoder subtracts b_dec.
    sae.py at f02711e^, lines of `pre_acts` and `decode`."""
    w = {"encoder.weight": normal(D_SAE, D_IN, scale=0.4), "encoder.bias": normal(D_SAE, scale=0.3),
         "W_dec": normal(D_SAE, D_IN, scale=0.5), "b_dec": normal(D_IN, scale=0.5)}
    text = source("sparsify", "f02711e^", "sparsify/sae.py")
    assert "sae_in = x.to(self.dtype) - self.b_dec" in text and "transcode" not in text
    (root / "run/layers.3.mlp").mkdir(parents=True)
    save_file(w, root / "run/layers.3.mlp/sae.safetensors")
    write(root / "run/layers.3.mlp/cfg.json", {"expansion_factor": 32, "normalize_decoder": True, "num_latents": D_SAE,
                                               "k": K, "multi_topk": False, "skip_connection": False, "d_in": D_IN})
    write(root / "run/config.json", {"sae": {"k": K}, "batch_size": 32, "transcode": True, "hookpoints": ["layers.3.mlp"]})

    def run(x):
        pre = torch.relu((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"])
        top = pre.topk(K, dim=-1)
        acts = torch.zeros_like(pre).scatter_(-1, top.indices, top.values)
        return acts, acts @ w["W_dec"] + w["b_dec"]

    return "run/layers.3.mlp", run


def language_model_saes(config, jumprelu_tensor):
    """Language-Model-SAEs in 2025, before Llamascopium: sae.py at babf36b (one threshold in the config) and at 2f4fe05 (a
    tensor), `encode` and `decode`. Activations are converted to the units of raw input, as in formats.py."""
    def make(root):
        commit = "2f4fe05" if jumprelu_tensor else "babf36b"
        text = source("Language-Model-SAEs", commit, "src/lm_saes/sae.py")
        assert "apply_decoder_bias_to_pre_encoder" in text and "hidden_pre * activation_mask" in text
        w = {"encoder.weight": normal(D_SAE, D_IN, scale=0.4), "encoder.bias": normal(D_SAE, scale=0.3),
             "decoder.weight": normal(D_IN, D_SAE, scale=0.5), "decoder.bias": normal(D_IN, scale=0.5)}
        point = "blocks.3.hook_resid_post"
        norm = 5.0
        tensors = dict(w)
        threshold = torch.tensor(config.get("jump_relu_threshold", 0.0))
        if jumprelu_tensor:
            log = normal(D_SAE, scale=0.4)
            tensors["activation_function.log_jumprelu_threshold"] = log
            tensors[f"dataset_average_activation_norm.{point}"] = torch.tensor(norm)
            threshold = log.exp()
        full = dict(sae_type="sae", hook_point_in=point, hook_point_out=point, d_model=D_IN,
                    expansion_factor=D_SAE / D_IN, use_decoder_bias=True, use_glu_encoder=False, act_fn="jumprelu",
                    top_k=50, sae_pretrained_name_or_path=None, strict_loading=True, dtype="torch.float32", device="cpu")
        full |= config
        (root / "sae").mkdir()
        save_file(tensors, root / "sae/sae_weights.safetensors")
        write(root / "sae/config.json", full)
        scale = math.sqrt(D_IN) / norm if full["norm_activation"] == "dataset-wise" else 1.0

        def run(x):
            x = x * scale
            if full["apply_decoder_bias_to_pre_encoder"]:
                x = x - w["decoder.bias"]
            pre = x @ w["encoder.weight"].T + w["encoder.bias"]
            scores = pre * w["decoder.weight"].norm(dim=0) if full["sparsity_include_decoder_norm"] else pre
            acts = pre * (scores > threshold)
            return acts / scale, (acts @ w["decoder.weight"].T + w["decoder.bias"]) / scale

        return "sae", run

    return make


def saelens(cfg, file=None, factor=1.0, architecture="standard"):
    """SAELens: `encode` and `decode` of sae.py at v5.11.0, and of saes/sae.py at v6.18.0. With
    `expected_average_only_in`, the SAE is given x times the factor, and its output is divided by it
    (activations_store.py, `apply_norm_scaling_factor` and `unscale`)."""
    def make(root):
        w = {"W_enc": normal(D_IN, D_SAE, scale=0.4), "b_enc": normal(D_SAE, scale=0.3),
             "W_dec": normal(D_SAE, D_IN, scale=0.5), "b_dec": normal(D_IN, scale=0.5)}
        if architecture == "jumprelu":
            w["threshold"] = normal(D_SAE, scale=0.4).abs() + 0.05
        (root / "sae").mkdir()
        save_file(w, root / "sae/sae_weights.safetensors")
        write(root / "sae/cfg.json", {"d_in": D_IN, "d_sae": D_SAE, "dtype": "torch.float32", "device": "cuda"} | cfg)
        if file:
            file(root / "sae")

        def run(x):
            pre = (x * factor - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
            acts = torch.relu(pre)
            if architecture == "jumprelu":
                acts = acts * (pre > w["threshold"])
            return acts, (acts @ w["W_dec"] + w["b_dec"]) / factor

        return "sae", run

    return make


def openai(root):
    """OpenAI's first release, model.py at 8f74a1c: no activation is stored, and it is ReLU."""
    state = {"pre_bias": normal(D_IN, scale=0.5), "latent_bias": normal(D_SAE, scale=0.3),
             "stats_last_nonzero": torch.zeros(D_SAE, dtype=torch.long),
             "encoder.weight": normal(D_SAE, D_IN, scale=0.4), "decoder.weight": normal(D_IN, D_SAE, scale=0.5)}
    folder = "gpt2-small/mlp_post_act/autoencoders"
    (root / folder).mkdir(parents=True)
    torch.save(state, root / folder / "3.pt")

    def run(x):
        latents = torch.relu((x - state["pre_bias"]) @ state["encoder.weight"].T + state["latent_bias"])
        return latents, latents @ state["decoder.weight"].T + state["pre_bias"]

    return f"{folder}/3.pt", run


# cfg.json of SAELens 3: the settings of the whole run on one level, as in the SAEs for GPT-2 small of 2024.
RUNNER = dict(model_name="gpt2-small", hook_point="blocks.3.hook_resid_pre", hook_point_layer=3, hook_point_head_index=None,
              dataset_path="Skylion007/openwebtext", is_dataset_tokenized=False, context_size=128, use_cached_activations=False,
              cached_activations_path="activations/x", from_pretrained_path=None, n_batches_in_buffer=128,
              total_training_tokens=300000000, store_batch_size=32, train_batch_size=4096, expansion_factor=32, seed=42,
              b_dec_init_method="geometric_median", l1_coefficient=8e-05, lp_norm=1, lr=0.0004, lr_scheduler_name=None,
              lr_warm_up_steps=5000, use_ghost_grads=True, feature_sampling_window=1000, feature_sampling_method=None,
              feature_reinit_scale=0.2, dead_feature_threshold=1e-08, log_to_wandb=True, wandb_project="x", wandb_entity=None,
              wandb_log_frequency=100, n_checkpoints=10, checkpoint_path="checkpoints/x", verbose=True, run_name="x",
              resample_batches=1028, dead_feature_window=5000, dead_feature_estimation_method="no_fire")
META = dict(sae_lens_version="6.18.0", model_name="tiny", hook_name="blocks.3.hook_resid_post", context_size=64,
            prepend_bos=True, model_from_pretrained_kwargs={"center_writing_weights": False})
V5 = dict(architecture="jumprelu", activation_fn_str="relu", activation_fn_kwargs={}, apply_b_dec_to_input=True,
          finetuning_scaling_factor=False, sae_lens_training_version="5.11.0", prepend_bos=True, model_name="gpt2",
          hook_name="blocks.3.hook_resid_post", hook_layer=3, hook_head_index=None, dataset_path="x", context_size=64,
          dataset_trust_remote_code=True, neuronpedia_id=None, model_from_pretrained_kwargs={"center_writing_weights": False},
          seqpos_slice=[None])


def scaler_of_6(dir):
    write(dir / "activation_scaler.json", {"scaling_factor": 1.75})


def scaler_of_5(dir):
    state = {"n_dataset_processed": torch.tensor(7), "estimated_norm_scaling_factor": torch.tensor(0.6)}
    save_file(state, dir / "activations_store_state.safetensors")


CASES = {
    "dictionary-learning-2024-05-standard": dictionary_learning(
        "44318e9", "dictionary.py", "AutoEncoderNew",
        {"trainer_class": "StandardTrainerNew", "lr": 1e-3, "l1_penalty": 0.1, "layer": 3, "lm_name": "tiny"}),
    "dictionary-learning-2024-10-topk": dictionary_learning(
        "b5821fd^", "trainers/top_k.py", "AutoEncoderTopK",
        {"trainer_class": "TrainerTopK", "dict_class": "AutoEncoderTopK", "activation_dim": D_IN, "dict_size": D_SAE, "k": K,
         "layer": 3, "lm_name": "tiny", "submodule_name": "resid_post_layer_3"}, args=(K,)),
    "dictionary-learning-2024-12-topk": dictionary_learning(
        "b5821fd", "trainers/top_k.py", "AutoEncoderTopK",
        {"trainer_class": "TopKTrainer", "dict_class": "AutoEncoderTopK", "activation_dim": D_IN, "dict_size": D_SAE, "k": K,
         "layer": 3, "lm_name": "tiny", "submodule_name": "resid_post_layer_3"},
        buffer={"d_submodule": D_IN, "io": "in", "ctx_len": 64}, args=(K,)),
    "dictionary-learning-2024-10-batch-topk": batch_topk,
    "dictionary-learning-2025-08-backup": backup,
    "sparsify-2024-11-transcoder": sparsify_transcoder,
    "llamascopium-2025-02-jumprelu": language_model_saes(
        dict(norm_activation="inference", jump_relu_threshold=0.5, apply_decoder_bias_to_pre_encoder=True,
             sparsity_include_decoder_norm=True), False),
    "llamascopium-2025-05-jumprelu": language_model_saes(
        dict(norm_activation="dataset-wise", apply_decoder_bias_to_pre_encoder=True, sparsity_include_decoder_norm=True,
             force_unit_decoder_norm=False, jumprelu_threshold_window=2.0, use_triton_kernel=False,
             sparsity_threshold_for_triton_spmm_kernel=0.99), True),
    "saelens-3-runner": saelens(RUNNER),
    "saelens-5-jumprelu": saelens(V5 | dict(normalize_activations="none"), architecture="jumprelu"),
    "saelens-5-checkpoint": saelens(
        V5 | dict(architecture="standard", normalize_activations="expected_average_only_in"), scaler_of_5, 0.6),
    "saelens-6-checkpoint": saelens(
        dict(architecture="jumprelu", apply_b_dec_to_input=True, normalize_activations="expected_average_only_in",
             reshape_activations="none", l0_coefficient=1.0, jumprelu_bandwidth=0.05, metadata=META),
        scaler_of_6, 1.75, "jumprelu"),
    "openai-2023-relu": openai,
}


@torch.no_grad()
def main():
    import shutil

    shutil.rmtree(FIXTURES, ignore_errors=True)
    for case, make in CASES.items():
        root = FIXTURES / case
        root.mkdir(parents=True)
        sae, run = make(root)
        if run is None:  # to be refused
            continue
        x = normal(N, D_IN, scale=1.2) + 0.3
        acts, x_hat = run(x)
        active = (acts != 0).sum(1).float().mean()
        assert 1 < active < D_SAE, f"{case}: {active} active latents"
        tensors = {"x": x, "feature_acts": acts.contiguous(), "x_hat": x_hat.contiguous()}
        save_file(tensors, root / "expected.safetensors", {"sae": sae})
        print(f"{case}: {active:.1f} of {D_SAE} latents active")


if __name__ == "__main__":
    main()
