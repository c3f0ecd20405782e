#!/usr/bin/env python3
"""SAEs of other tools: makes the reference vectors of the tests, and checks that the tools can read our SAEs.

    python formats.py make                 writes trainer/tests/fixtures/formats/
    python formats.py check REFRACT WORK   converts each of them with the binary REFRACT into each format that can
                                           hold it, below WORK, and opens the result in the tool

A case is a folder: the SAE as its tool saves it, and expected.safetensors with `x` [n, d_in], `feature_acts`
[n, d_sae] and `x_hat` [n, d_out], computed by the tool, in float32. `sae` in the header is the path of the SAE.

The programs that compute: SAELens 6 (its own folders, its loaders of Gemma Scope 1 and 2 and of Llama Scope), sparsify,
dictionary_learning, Llamascopium. OpenAI's package is not on PyPI; `OpenAi` below is the formula of its
sparse_autoencoder/model.py (github.com/openai/sparse_autoencoder at 4965b941). Versions: requirements.txt.
"""
import json
import math
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "formats"
D_IN, D_SAE, D_OUT, N, K = 10, 24, 7, 12, 4
torch.manual_seed(0)


def normal(*shape, scale=1.0, seed=[0]):
    seed[0] += 1
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed[0]))


def weights(d_out=D_IN, unit=False):
    w_dec = normal(D_SAE, d_out, scale=0.5)
    if unit:
        w_dec = w_dec / w_dec.norm(dim=1, keepdim=True)
    return {
        "W_enc": normal(D_IN, D_SAE, scale=0.4),
        "b_enc": normal(D_SAE, scale=0.3),
        "W_dec": w_dec,
        "b_dec": normal(d_out, scale=0.5),
    }


def thresholds():
    return normal(D_SAE, scale=0.4).abs() + 0.05


# Results of the tools: (feature_acts, x_hat) of x, for an SAE's folder or file.


def run_saelens(path, x):
    from sae_lens import SAE

    sae = SAE.load_from_disk(path)
    return sae.encode(x), sae(x)


def run_sparsify(path, x):
    from sparsify import SparseCoder

    sae = SparseCoder.load_from_disk(path)
    found = sae(x)
    dense = torch.zeros(len(x), sae.num_latents).scatter_(1, found.latent_indices, found.latent_acts)
    return dense, found.sae_out


def run_dictionary_learning(path, x):
    from dictionary_learning.utils import load_dictionary

    dictionary, _ = load_dictionary(str(path), "cpu")
    return dictionary.encode(x), dictionary(x)


def from_hub(path, loader, **kwargs):
    """An SAE read by one of SAELens' Hub loaders, but from local files."""
    import sae_lens.loading.pretrained_sae_loaders as loaders
    from sae_lens import SAE

    def local(repo_id, filename, subfolder="", **_):
        return str(Path(path, Path(subfolder, filename).relative_to(kwargs["folder_name"])))

    def shapes(*_):
        with safe_open(Path(path) / "params.safetensors", "pt") as file:
            return {key: list(file.get_slice(key).get_shape()) for key in file.keys()}

    saved = loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes
    loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes = local, shapes
    try:
        cfg, state, _ = getattr(loaders, loader)(device="cpu", force_download=False, **kwargs)
    finally:
        loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes = saved
    cfg = loaders.handle_config_defaulting(cfg)
    sae_cfg = SAE.get_sae_config_class_for_architecture(cfg["architecture"]).from_dict(cfg)
    sae = SAE.get_sae_class_for_architecture(cfg["architecture"])(sae_cfg)
    sae.process_state_dict_for_loading(state)
    sae.load_state_dict(state)
    return sae


def run_gemma_scope(path, x):
    with np.load(Path(path) / "params.npz") as file:
        d_in, d_sae = file["W_enc" if "W_enc" in file else "w_enc"].shape
    repo = next((part for part in reversed(Path(path).parts) if part.startswith("gemma-scope-")), "gemma-scope-2b-pt-res")
    loader = "gemma_2_transcoder_huggingface_loader" if "transcoders" in repo else "gemma_2_sae_huggingface_loader"
    overrides = {"d_in": d_in, "d_sae": d_sae} | ({"d_out": npz_d_out(path)} if "transcoders" in repo else {})
    folder = "layer_3/width_16k/average_l0_5"
    sae = from_hub(path, loader, repo_id=f"google/{repo}", folder_name=folder, cfg_overrides=overrides)
    return sae.encode(x), sae(x)


def npz_d_out(path):
    with np.load(Path(path) / "params.npz") as file:
        return file["W_dec"].shape[1]


def run_gemma_scope_2(path, x):
    config = json.loads((Path(path) / "config.json").read_text())
    kind = "transcoder" if config.get("hf_hook_point_out") else "resid_post"
    folder = f"{kind}/layer_3_width_16k_l0_small"
    sae = from_hub(path, "gemma_3_sae_huggingface_loader", repo_id="google/gemma-scope-2-1b-pt", folder_name=folder,
                   cfg_overrides=None)
    return sae.encode(x), sae(x)


def run_openai(path, x):
    """openai/sparse_autoencoder, model.py: LN, encode, TopK or ReLU, decode."""
    path = Path(path)
    state = torch.load(path if path.is_file() else next(path.glob("*.pt")), weights_only=True)
    top_k = state["activation"] == "TopK"
    mu, std = torch.zeros(len(x), 1), torch.ones(len(x), 1)
    normed = x
    if top_k:
        mu = x.mean(dim=-1, keepdim=True)
        normed = x - mu
        std = normed.std(dim=-1, keepdim=True)
        normed = normed / (std + 1e-5)
    pre = (normed - state["pre_bias"]) @ state["encoder.weight"].T + state["latent_bias"]
    latents = pre.relu()
    if top_k:
        assert state["activation_state_dict"]["postact_fn"] == "ReLU"
        top = torch.topk(pre, k=state["activation_state_dict"]["k"], dim=-1)
        latents = torch.zeros_like(pre).scatter_(-1, top.indices, top.values.relu())
    x_hat = latents @ state["decoder.weight"].T + state["pre_bias"]
    return latents, x_hat * std + mu if top_k else x_hat


def run_llamascopium(path, x):
    """The tool's own path: normalize, encode, decode, denormalize. Activations are converted to the units of raw input. If
    topk selects by the decoder's norm, they are multiplied by that norm. refract documents that it reads them this way."""
    from llamascopium.models.sae import SparseAutoEncoder

    sae = SparseAutoEncoder.from_pretrained(str(path))
    sae.eval()
    cfg = sae.cfg
    point_in, point_out = cfg.hook_point_in, cfg.hook_point_out
    scale_in = sae.compute_norm_factor(x, hook_point=point_in)
    scale_out = scale_in if point_out == point_in else sae.compute_norm_factor(x, hook_point=point_out)
    acts = sae.encode(x * scale_in)
    x_hat = sae.decode(acts) / scale_out
    if cfg.norm_activation == "dataset-wise":
        acts = acts / scale_in
    if cfg.act_fn == "topk" and cfg.sparsity_include_decoder_norm:
        acts = acts * sae.decoder_norm()
    return acts, x_hat


def run_llama_scope(path, x):
    """SAELens' loader, and the folding that its configuration (`expected_average_only_in`) requires."""
    path = Path(path)
    hyper = json.loads((path / "hyperparams.json").read_text())
    sae = from_hub(path, "llama_scope_sae_huggingface_loader", repo_id="fnlp/Llama3_1-8B-Base-LXR-8x",
                   folder_name="Llama3_1-8B-Base-L3R-8x", cfg_overrides={"dtype": "float32"})
    scale = math.sqrt(hyper["d_model"]) / hyper["dataset_average_activation_norm"]["in"]
    sae.fold_activation_norm_scaling_factor(scale)
    # It folds the scale into W_enc: its activations are `scale` times those of raw input.
    return sae.encode(x) / scale, sae(x)


RUN = {
    "saelens": run_saelens,
    "sparsify": run_sparsify,
    "dictionary-learning": run_dictionary_learning,
    "gemma-scope": run_gemma_scope,
    "gemma-scope-2": run_gemma_scope_2,
    "openai": run_openai,
    "llamascopium": run_llamascopium,
    "llama-scope": run_llama_scope,
}


# The cases: each writes an SAE below `root` and returns its path.


def saelens(architecture, tensors, **cfg):
    def make(root):
        from sae_lens import SAE

        metadata = dict(model_name="tiny", hook_name="blocks.3.hook_resid_post", context_size=64, prepend_bos=True)
        if "transcoder" in architecture:
            metadata |= dict(hook_name="blocks.3.ln2.hook_normalized", hook_name_out="blocks.3.hook_mlp_out")
        settings = dict(d_in=D_IN, d_sae=D_SAE, architecture=architecture, metadata=metadata, **cfg)
        config = SAE.get_sae_config_class_for_architecture(architecture).from_dict(settings)
        sae = SAE.get_sae_class_for_architecture(architecture)(config)
        sae.load_state_dict(tensors)
        sae.save_model(root / "sae")
        return "sae"

    return make


def gated():
    tensors = weights()
    del tensors["b_enc"]
    return tensors | {"b_gate": normal(D_SAE, scale=0.3), "r_mag": normal(D_SAE, scale=0.3), "b_mag": normal(D_SAE, scale=0.3)}


def legacy(root):
    """A flat cfg.json, as SAELens wrote before version 6, of a topk SAE."""
    tensors = weights()
    (root / "sae").mkdir()
    save_file(tensors | {"scaling_factor": torch.ones(D_SAE)}, root / "sae/sae_weights.safetensors")
    cfg = dict(d_in=D_IN, d_sae=D_SAE, dtype="float32", device="cpu", hook_point="blocks.3.hook_resid_pre",
               hook_point_layer=3, hook_point_head_index=None, model_name="gpt2-small", activation_fn_str="topk",
               activation_fn_kwargs={"k": K}, apply_b_dec_to_input=True, finetuning_scaling_factor=True,
               normalize_activations=False, context_size=128, prepend_bos=True, dataset_path="made/up")
    (root / "sae/cfg.json").write_text(json.dumps(cfg))
    return "sae"


def sparsify(folder, **cfg):
    def make(root):
        from sparsify import SparseCoder, SparseCoderConfig

        sae = SparseCoder(D_IN, SparseCoderConfig(num_latents=D_SAE, k=K, **cfg))
        tensors = weights(unit=True)
        sae.encoder.weight.data = tensors["W_enc"].T.contiguous()
        sae.encoder.bias.data = tensors["b_enc"]
        sae.W_dec.data, sae.b_dec.data = tensors["W_dec"], tensors["b_dec"]
        if sae.W_skip is not None:
            sae.W_skip.data = normal(D_IN, D_IN, scale=0.2)
        sae.save_to_disk(root / folder)
        return folder

    return make


def dictionary_learning(dict_class, **trainer):
    def make(root):
        import dictionary_learning.utils as dl

        kwargs = {"k": K} if "TopK" in dict_class else {}
        if dict_class.startswith("Matryoshka"):
            kwargs["group_sizes"] = [8, 16]
        dictionary = getattr(dl, dict_class)(D_IN, D_SAE, **kwargs)
        for name, tensor in dictionary.state_dict().items():
            if tensor.is_floating_point() and tensor.dim() > 0:
                tensor.copy_(thresholds() if name == "threshold" else normal(*tensor.shape, scale=0.4))
        if "BatchTopK" in dict_class:
            dictionary.threshold.fill_(0.6)
        (root / "sae").mkdir()
        torch.save(dictionary.state_dict(), root / "sae/ae.pt")
        config = {"trainer": {"trainer_class": "Trainer", "dict_class": dict_class, "activation_dim": D_IN,
                              "dict_size": D_SAE, "layer": 3, "lm_name": "tiny", "lr": 0.001,
                              "submodule_name": "resid_post_layer_3"} | ({"k": K} if kwargs else {}),
                  "buffer": {"d_submodule": D_IN, "ctx_len": 64}}
        (root / "sae/config.json").write_text(json.dumps(config))
        return "sae"

    return make


def gemma_scope(release, fortran=False, d_out=D_IN):
    def make(root):
        folder = f"{release}/layer_3/width_16k/average_l0_5"
        (root / folder).mkdir(parents=True)
        arrays = {name: tensor.numpy() for name, tensor in (weights(d_out) | {"threshold": thresholds()}).items()}
        if fortran:
            arrays["W_enc"] = np.asfortranarray(arrays["W_enc"])
        (np.savez_compressed if fortran else np.savez)(root / folder / "params.npz", **arrays)
        return folder

    return make


def gemma_scope_2(transcoder=False, affine=False):
    def make(root):
        folder = "transcoder/layer_3_width_16k_l0_small" if transcoder else "resid_post/layer_3_width_16k_l0_small"
        (root / folder).mkdir(parents=True)
        tensors = {name.lower(): tensor for name, tensor in (weights() | {"threshold": thresholds()}).items()}
        if affine:
            tensors["affine_skip_connection"] = normal(D_IN, D_IN, scale=0.2)
        save_file(tensors, root / folder / "params.safetensors")
        config = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "width": D_SAE, "l0": 5,
                  "affine_connection": affine, "hf_hook_point_in": "model.layers.3.output"}
        if transcoder:
            config |= {"hf_hook_point_in": "model.layers.3.pre_feedforward_layernorm.output",
                       "hf_hook_point_out": "model.layers.3.post_feedforward_layernorm.output"}
        (root / folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


def openai(activation):
    def make(root):
        folder = "resid_post_mlp_v5_32k/autoencoders"
        (root / folder).mkdir(parents=True)
        tensors = weights()
        state = {
            "pre_bias": tensors["b_dec"],
            "latent_bias": tensors["b_enc"],
            "stats_last_nonzero": torch.zeros(D_SAE, dtype=torch.long),
            "latents_activation_frequency": torch.ones(D_SAE),
            "latents_mean_square": torch.zeros(D_SAE),
            "encoder.weight": tensors["W_enc"].T,  # a view with strides: the file keeps them
            "decoder.weight": tensors["W_dec"].T,
            "activation": activation,
        }
        if activation == "TopK":
            state["activation_state_dict"] = {"k": K, "postact_fn": "ReLU"}
        torch.save(state, root / folder / "3.pt")
        return f"{folder}/3.pt"

    return make


def llamascopium(hook_point_out="blocks.3.hook_resid_post", **cfg):
    def make(root):
        from llamascopium.models.sae import SAEConfig, SparseAutoEncoder

        point_in = "blocks.3.hook_resid_post" if hook_point_out.endswith("post") else "blocks.3.ln2.hook_normalized"
        config = SAEConfig(hook_point_in=point_in, hook_point_out=hook_point_out, d_model=D_IN,
                           expansion_factor=D_SAE / D_IN, top_k=K, **cfg)
        sae = SparseAutoEncoder(config)
        tensors = weights()
        with torch.no_grad():
            sae.W_E.copy_(tensors["W_enc"]), sae.b_E.copy_(tensors["b_enc"])
            sae.W_D.copy_(tensors["W_dec"]), sae.b_D.copy_(tensors["b_dec"])
            if config.act_fn == "jumprelu":
                sae.activation_function.log_jumprelu_threshold.copy_(thresholds().log())
        # If they are not used, the tool saves uninitialized memory. NaN instead gives the same bytes in every run.
        norms = {point_in: 5.0, hook_point_out: 5.0 if hook_point_out == point_in else 4.0}
        asked_for = config.norm_activation == "dataset-wise"
        sae.set_dataset_average_activation_norm({point: norm if asked_for else math.nan for point, norm in norms.items()})
        (root / "sae").mkdir()
        sae.save_pretrained(root / "sae")
        config.save_hyperparameters(root / "sae")
        return "sae"

    return make


def llama_scope(root):
    tensors = weights(unit=True)  # SAELens' loader does not apply the decoder's norm, which is 1 in the release
    (root / "sae/checkpoints").mkdir(parents=True)
    save_file({"encoder.weight": tensors["W_enc"].T.contiguous(), "encoder.bias": tensors["b_enc"],
               "decoder.weight": tensors["W_dec"].T.contiguous(), "decoder.bias": tensors["b_dec"]},
              root / "sae/checkpoints/final.safetensors")
    hyper = dict(hook_point_in="blocks.3.hook_resid_post", hook_point_out="blocks.3.hook_resid_post", d_model=D_IN,
                 d_sae=D_SAE, expansion_factor=D_SAE / D_IN, act_fn="jumprelu", jump_relu_threshold=0.5,
                 norm_activation="dataset-wise", dataset_average_activation_norm={"in": 5.0, "out": 5.0},
                 use_decoder_bias=True, apply_decoder_bias_to_pre_encoder=False, use_glu_encoder=False,
                 sparsity_include_decoder_norm=True, top_k=50)
    (root / "sae/hyperparams.json").write_text(json.dumps(hyper))
    return "sae"


def cases():
    plain, skip = dict(apply_b_dec_to_input=True), dict(apply_b_dec_to_input=False, d_out=D_OUT)
    with_skip = lambda: {"W_skip": normal(D_OUT, D_IN, scale=0.2)}
    return {
        "saelens-standard": saelens("standard", weights(), **plain),
        "saelens-topk": saelens("topk", weights(), k=K, **plain),
        "saelens-topk-rescaled": saelens("topk", weights(), k=K, rescale_acts_by_decoder_norm=True, **plain),
        "saelens-jumprelu": saelens("jumprelu", weights() | {"threshold": thresholds()}, **plain),
        "saelens-gated": saelens("gated", gated(), **plain),
        "saelens-layer-norm": saelens("topk", weights(), k=K, normalize_activations="layer_norm", **plain),
        "saelens-constant-norm": saelens("standard", weights(), normalize_activations="constant_norm_rescale", **plain),
        "saelens-transcoder": saelens("transcoder", weights(D_OUT), **skip),
        "saelens-skip-transcoder": saelens("skip_transcoder", weights(D_OUT) | with_skip(), **skip),
        "saelens-jumprelu-transcoder": saelens("jumprelu_transcoder", weights(D_OUT) | {"threshold": thresholds()}, **skip),
        "saelens-jumprelu-skip-transcoder": saelens(
            "jumprelu_skip_transcoder", weights(D_OUT) | with_skip() | {"threshold": thresholds()}, **skip),
        "saelens-legacy": legacy,
        "sparsify-sae": sparsify("layers.3"),
        "sparsify-skip": sparsify("layers.3", skip_connection=True),
        "sparsify-transcoder": sparsify("layers.3.mlp", transcode=True),
        "sparsify-skip-transcoder": sparsify("layers.3.mlp", transcode=True, skip_connection=True),
        "dictionary-learning-AutoEncoder": dictionary_learning("AutoEncoder"),
        "dictionary-learning-AutoEncoderNew": dictionary_learning("AutoEncoderNew"),
        "dictionary-learning-AutoEncoderTopK": dictionary_learning("AutoEncoderTopK"),
        "dictionary-learning-BatchTopKSAE": dictionary_learning("BatchTopKSAE"),
        "dictionary-learning-MatryoshkaBatchTopKSAE": dictionary_learning("MatryoshkaBatchTopKSAE"),
        "dictionary-learning-JumpReluAutoEncoder": dictionary_learning("JumpReluAutoEncoder"),
        "dictionary-learning-GatedAutoEncoder": dictionary_learning("GatedAutoEncoder"),
        "gemma-scope-res": gemma_scope("gemma-scope-2b-pt-res"),
        "gemma-scope-packed": gemma_scope("gemma-scope-2b-pt-mlp", fortran=True),
        "gemma-scope-transcoder": gemma_scope("gemma-scope-2b-pt-transcoders", d_out=D_OUT),
        "gemma-scope-2-res": gemma_scope_2(),
        "gemma-scope-2-transcoder": gemma_scope_2(transcoder=True),
        "gemma-scope-2-affine": gemma_scope_2(transcoder=True, affine=True),
        "openai-topk": openai("TopK"),
        "openai-relu": openai("ReLU"),
        "llamascopium-relu": llamascopium(act_fn="relu", norm_activation="dataset-wise"),
        "llamascopium-jumprelu": llamascopium(
            act_fn="jumprelu", norm_activation="dataset-wise", sparsity_include_decoder_norm=True),
        "llamascopium-jumprelu-folded": llamascopium(
            act_fn="jumprelu", norm_activation="inference", sparsity_include_decoder_norm=False),
        "llamascopium-topk": llamascopium(act_fn="topk", norm_activation="inference", sparsity_include_decoder_norm=True),
        "llamascopium-token-wise": llamascopium(
            act_fn="topk", norm_activation="token-wise", sparsity_include_decoder_norm=False),
        "llamascopium-transcoder": llamascopium(
            hook_point_out="blocks.3.hook_mlp_out", act_fn="jumprelu", norm_activation="dataset-wise"),
        "llama-scope": llama_scope,
    }


def tool_of(case):
    return max((name for name in RUN if case.startswith(name)), key=len)


@torch.no_grad()
def make():
    import shutil

    shutil.rmtree(FIXTURES, ignore_errors=True)
    for case, write in cases().items():
        root = FIXTURES / case
        root.mkdir(parents=True)
        sae = write(root)
        x = normal(N, D_IN, scale=1.2) + 0.3
        acts, x_hat = RUN[tool_of(case)](root / sae, x)
        active = (acts != 0).sum(1).float().mean()
        assert 1 < active < D_SAE, f"{case}: {active} active latents"
        tensors = {"x": x, "feature_acts": acts.contiguous(), "x_hat": x_hat.contiguous()}
        save_file(tensors, root / "expected.safetensors", {"sae": sae})
        print(f"{case}: {active:.1f} of {D_SAE} latents active, reconstruction {list(x_hat.shape)}")


# Formats in which each case can be written; the others are refused. `check` expects exactly these to work.
WRITABLE = ["saelens", "sparsify", "dictionary-learning", "gemma-scope", "gemma-scope-2", "openai", "llamascopium"]
# Our architectures that SAELens also has, by SAELens' names.
SAELENS_HAS = {"standard", "topk", "jumprelu", "gated", "transcoder", "skip_transcoder", "jumprelu_transcoder",
               "jumprelu_skip_transcoder"}


@torch.no_grad()
def check(refract, work):
    compared = {}
    for case in sorted(path.name for path in FIXTURES.iterdir()):
        expected_path = FIXTURES / case / "expected.safetensors"
        with safe_open(expected_path, "pt") as file:
            sae = FIXTURES / case / file.metadata()["sae"]
        expected = load_file(expected_path)
        for to in WRITABLE:
            # If a format takes the hook point from the folder's name, the name must be the tool's. Two cases have another one.
            transcoder = "transcoder" in case or "affine" in case
            release = "transcoders" if transcoder else "mlp" if case == "gemma-scope-packed" else "res"
            folder = {"sparsify": "layers.3.mlp" if transcoder else "sae" if case == "saelens-legacy" else "layers.3",
                      "gemma-scope": f"gemma-scope-2b-pt-{release}/layer_3"}.get(to, "sae")
            out = Path(work) / case / to / folder
            command = [refract, "convert", str(sae), "--to", to, "--out", str(out)]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode != 0:
                assert f"SAE to be written as {to}" in result.stderr, result.stderr
                continue
            if to == "saelens":
                word = json.loads((out / "cfg.json").read_text())["architecture"]
                if word not in SAELENS_HAS:
                    continue
            acts, x_hat = RUN[to](out, expected["x"])
            unit = to == "dictionary-learning" and "autoencoder" in json.loads(
                (out / "config.json").read_text())["trainer"]["dict_class"].lower()
            pairs = {"x_hat": (x_hat, expected["x_hat"])}
            if not unit:  # the tool scales decoder rows to norm 1: same directions, other norms
                pairs["feature_acts"] = (acts, expected["feature_acts"])
            for name, (found, wanted) in pairs.items():
                error = ((found - wanted).norm() / wanted.norm()).item()
                assert error < 1e-5, f"{case} as {to}: {name} differs by {error:.1e}"
            compared.setdefault(to, []).append(case)
    for to in WRITABLE:
        print(f"{to}: the tool gives the same numbers for {len(compared[to])} SAEs: {', '.join(compared[to])}")


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make()
    else:
        check(*sys.argv[2:])
