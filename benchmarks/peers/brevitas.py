"""Brevitas: equalise, quantise layer by layer, GPTQ below 8 bits, bias correction."""

import brevitas.nn as qnn
import torch
from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
from brevitas.graph.gptq import gptq_mode
from brevitas.graph.quantize import layerwise_quantize, preprocess_for_quantize
from brevitas.quant.scaled_int import Int8WeightPerChannelFloatMSE
from brevitas.quant.shifted_scaled_int import ShiftedUint8ActPerTensorFloatMSE
from peers.flow import Job, run
from torch import nn


@torch.no_grad()
def quantise(job: Job) -> nn.Module:
    """The flow of Brevitas' ``imagenet_classification/ptq`` example, with its layerwise backend."""
    # With ReLU in the place of ReLU6, its default, EfficientNet-Lite0 changes a quarter of its predictions in float.
    model = preprocess_for_quantize(job.model, equalize_iters=20, relu6_to_relu=False)
    quantizers = {
        "weight_quant": Int8WeightPerChannelFloatMSE.let(bit_width=job.weight_bits),
        "input_quant": ShiftedUint8ActPerTensorFloatMSE.let(bit_width=job.activation_bits),
        "bias_quant": None,
        "return_quant_tensor": False,
    }
    layers = {nn.Conv2d: (qnn.QuantConv2d, quantizers), nn.Linear: (qnn.QuantLinear, quantizers)}
    model = layerwise_quantize(model, layers, name_blacklist=[job.stem])
    model(job.batches[0])  # so that the weights' scales are there
    with calibration_mode(model):
        show(model, job)
    if job.weight_bits < 8:
        round_by_gptq(model, job)
    with bias_correction_mode(model):
        show(model, job)
    return model


def round_by_gptq(model: nn.Module, job: Job) -> None:
    """Weights after weights, each layer fed by the quantised ones before it."""
    with gptq_mode(model, act_order=True, use_quant_activations=True) as gptq:
        for _ in range(gptq.num_layers):
            show(gptq.model, job)
            gptq.update()


def show(model: nn.Module, job: Job) -> None:
    """Run the calibration images."""
    for batch in job.batches:
        model(batch)


if __name__ == "__main__":
    run(quantise)
