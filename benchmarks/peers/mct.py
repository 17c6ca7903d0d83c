"""Model Compression Toolkit: gradient-based post-training quantisation; at 8 bits post-training alone."""

from collections.abc import Iterator

import model_compression_toolkit as mct
import torch
from mct_quantizers import QuantizationMethod
from model_compression_toolkit.target_platform_capabilities.schema import mct_current_schema as schema
from peers.flow import Job, run
from torch import Tensor, nn

EPOCHS = 5  # as in its own example
KERNEL = "kernel_attr"
FLOAT_BITS = 32
INPUT_BITS = (2, 3, 4, 8, FLOAT_BITS)  # whatever comes
NAMES = schema.OperatorSetNames
POOL = "pool"
POOLS = mct.core.CustomOpsetLayers([torch.mean, Tensor.mean, nn.AdaptiveAvgPool2d])


def quantise(job: Job) -> nn.Module:
    """MCT quantises the outputs of layers; a convolution, the addition and the ReLU behind it count as one."""

    def images() -> Iterator[list[Tensor]]:
        for batch in job.batches:
            yield [batch]

    editor = mct.core.network_editor
    stays_float = editor.ChangeCandidatesWeightsQuantConfigAttr(attr_name="weight", enable_weights_quantization=False)
    stem = editor.NodeNameFilter(job.stem.replace(".", "_"))
    core = mct.core.CoreConfig(
        quantization_config=mct.core.QuantizationConfig(custom_tpc_opset_to_layer={POOL: POOLS}),
        debug_config=mct.core.DebugConfig(network_editor=[editor.EditRule(stem, stays_float)]),
    )
    arguments = {"core_config": core, "target_platform_capabilities": capabilities(job)}
    if job.weight_bits < 8:
        settings = mct.gptq.get_pytorch_gptq_config(n_epochs=EPOCHS)
        model, _ = mct.gptq.pytorch_gradient_post_training_quantization(
            job.model, images, gptq_config=settings, **arguments
        )
    else:
        model, _ = mct.ptq.pytorch_post_training_quantization(job.model, images, **arguments)
    return model


def capabilities(job: Job) -> schema.TargetPlatformCapabilities:
    """Weights per channel, outputs per tensor with a zero point; the last layer's output stays in float."""
    weights = {KERNEL: attribute(job.weight_bits, quantised=True)}
    quantised = operation(job.activation_bits, quantised=True)
    layer = options(operation(job.activation_bits, quantised=True, attributes=weights))
    last = options(operation(job.activation_bits, quantised=False, attributes=weights))
    convolution = schema.OperatorSetGroup(
        operators_set=[schema.OperatorsSet(name=name, qc_options=layer) for name in (NAMES.CONV, NAMES.DEPTHWISE_CONV)]
    )
    linear = schema.OperatorsSet(name=NAMES.FULLY_CONNECTED, qc_options=last)
    relu, add, pool = (
        [schema.OperatorsSet(name=name, qc_options=options(quantised)) for name in names]
        for names in ((NAMES.RELU, NAMES.RELU6, NAMES.HARD_TANH), (NAMES.ADD,), (POOL,))
    )
    activation = schema.OperatorSetGroup(operators_set=relu)
    fused = ((convolution, add[0], activation), (convolution, activation), (convolution, add[0]), (add[0], activation))
    return schema.TargetPlatformCapabilities(
        default_qco=options(operation(FLOAT_BITS, quantised=False)),
        tpc_minor_version=1,
        tpc_patch_version=0,
        tpc_platform_type="benchmark",
        operator_set=(*convolution.operators_set, linear, *relu, *add, *pool),
        fusing_patterns=tuple(schema.Fusing(operator_groups=groups) for groups in fused),
        add_metadata=False,
        name="benchmark",
    )


def operation(bits: int, quantised: bool, attributes: dict | None = None) -> schema.OpQuantizationConfig:
    """Of an operation whose output has so many bits."""
    return schema.OpQuantizationConfig(
        default_weight_attr_config=attribute(FLOAT_BITS, quantised=False),
        attr_weights_configs_mapping=attributes or {},
        activation_quantization_method=QuantizationMethod.UNIFORM,
        activation_n_bits=bits,
        supported_input_activation_n_bits=INPUT_BITS,
        enable_activation_quantization=quantised,
        quantization_preserving=False,
        fixed_scale=None,
        fixed_zero_point=None,
        simd_size=None,
        signedness=schema.Signedness.AUTO,
    )


def attribute(bits: int, quantised: bool) -> schema.AttributeQuantizationConfig:
    """Of a weight or bias."""
    return schema.AttributeQuantizationConfig(
        weights_quantization_method=QuantizationMethod.SYMMETRIC,
        weights_n_bits=bits,
        weights_per_channel_threshold=True,
        enable_weights_quantization=quantised,
        lut_values_bitwidth=None,
    )


def options(configuration: schema.OpQuantizationConfig) -> schema.QuantizationConfigOptions:
    """This one alone."""
    return schema.QuantizationConfigOptions(quantization_configurations=(configuration,))


if __name__ == "__main__":
    run(quantise)
