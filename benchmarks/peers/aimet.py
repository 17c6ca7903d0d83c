"""AIMET: cross-layer equalisation, AdaRound below 8 bits, ranges by its enhanced scheme."""

import tempfile
from pathlib import Path

import torch
from aimet_torch.adaround.adaround_weight import Adaround, AdaroundParameters
from aimet_torch.batch_norm_fold import fold_all_batch_norms
from aimet_torch.common.defs import QuantScheme
from aimet_torch.cross_layer_equalization import equalize_model
from aimet_torch.model_preparer import prepare_model
from aimet_torch.quantization.affine import QuantizeDequantize
from aimet_torch.quantization.encoding_analyzer import SqnrEncodingAnalyzer
from aimet_torch.quantsim import QuantizationSimModel
from peers.flow import Job, run
from torch import nn

# Weights per channel; which inputs are quantised is said below.
CONFIG = str(Path(__file__).with_suffix(".json"))
ITERATIONS = 1000  # a layer; its own default, 15,000, takes hours on a CPU
AS_FLOAT = 16  # bits of the stem's weights while the others are rounded
SCHEME = QuantScheme.post_training_tf_enhanced


def quantise(job: Job) -> nn.Module:
    """As in AIMET's examples of equalisation and of AdaRound; at 8 bits to the nearest."""
    dummy = job.images[:1]
    model = prepare_model(job.model)
    if any(isinstance(module, nn.ReLU6) for module in model.modules()):
        # Equalisation asks for ReLU in its place, which changes a quarter of EfficientNet-Lite0's predictions in float.
        fold_all_batch_norms(model, None, dummy_input=dummy)
    else:
        equalize_model(model, dummy_input=dummy)
    with tempfile.TemporaryDirectory() as folder:
        encodings = None
        if job.weight_bits < 8:
            model = rounded(model, job, folder)
            encodings = f"{folder}/rounded.encodings"
        sim = QuantizationSimModel(
            model,
            dummy_input=dummy,
            quant_scheme=SCHEME,
            default_param_bw=job.weight_bits,
            default_output_bw=job.activation_bits,
            config_file=CONFIG,
        )
        if encodings is not None:
            sim.set_and_freeze_param_encodings(encodings)
        stem = stem_of(sim.model)
        stem.param_quantizers["weight"] = None
        for module in sim.model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module is not stem:
                module.input_quantizers[0] = input_quantizer(job.activation_bits)
    sim.compute_encodings(lambda quantised, _: show(quantised, job), None)
    return sim.model


def input_quantizer(bits: int) -> QuantizeDequantize:
    """With a zero point, per tensor; its range is that of the best signal to noise."""
    return QuantizeDequantize((), bits, symmetric=False, encoding_analyzer=SqnrEncodingAnalyzer(()))


def rounded(model: nn.Module, job: Job, folder: str) -> nn.Module:
    """The network with the weights that AdaRound gives; their ranges are written to ``folder``."""
    parameters = AdaroundParameters(job.batches, len(job.batches), default_num_iterations=ITERATIONS)
    return Adaround.apply_adaround(
        model,
        job.images[:1],
        parameters,
        path=folder,
        filename_prefix="rounded",
        default_param_bw=job.weight_bits,
        param_bw_override_list=[(stem_of(model), AS_FLOAT)],
        default_quant_scheme=SCHEME,
        default_config_file=CONFIG,
    )


def stem_of(model: nn.Module) -> nn.Module:
    """The first convolution."""
    return next(module for module in model.modules() if isinstance(module, nn.Conv2d))


@torch.no_grad()
def show(model: nn.Module, job: Job) -> None:
    """Run the calibration images."""
    for batch in job.batches:
        model(batch)


if __name__ == "__main__":
    run(quantise)
