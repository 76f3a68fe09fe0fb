"""Says what a file of weights is that cannot be opened, from its tensor names.

Each table pairs a pattern of tensor names with what has such names, and with what can be done. The first pattern that
matches decides.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from maskrcnn.weights.frameworks.settings import setting

NO_MASK_RCNN = "it has other parts than a Mask R-CNN, so that no conversion is possible"
BACKBONE = "it has no detector: begin a training from it with `maskrcnn train --weights`"
OTHER_NAMES = "its Mask R-CNN has other parts or names than those that can be opened: train anew with `maskrcnn train`"

Table = tuple[tuple[str, str, str], ...]  # pattern, what has such names, advice

# Files that no importer recognises.
FAMILIES: Table = (
    (
        r"^rpn\.head\.objectness\.",
        "this package without their settings",
        "give the model.safetensors of its run",
    ),
    (r"^(module\.)?(Conv_Body|Box_Outs|Mask_Outs)\.", "Detectron.pytorch (roytseng-tw)", OTHER_NAMES),
    (r"^(module\.)?RCNN_(base|rpn|cls_score|bbox_pred)\.", "faster-rcnn.pytorch (jwyang)", OTHER_NAMES),
    (r"\._mean$|\bres\d[a-z]\.branch2[abc]\.|^[a-z\d]+(_\d+)+\.[wb]_\d+$", "PaddleDetection", OTHER_NAMES),
    (r"^(maskrcnn|fasterrcnn|resnetv1[bd]?)\d+_", "GluonCV (MXNet)", OTHER_NAMES),
    (r"fcos_head\.|^proposal_generator\.fcos", "AdelaiDet (FCOS, CondInst, BlendMask, CenterMask)", NO_MASK_RCNN),
    (r"^proto_net\.|^prediction_layers\.|^mask_head\.protonet\.", "YOLACT", NO_MASK_RCNN),
    (r"^(bbox_head|mask_head)\.(kernel_convs|cate_convs|ins_convs|solo_cate)\.", "SOLO", NO_MASK_RCNN),
    (r"^roi_head\.bbox_head\.\d\.(instance_interactive|attention)|^head\.head_series\.", "Sparse R-CNN", NO_MASK_RCNN),
    (
        r"^(proposal_generator|roi_heads\.(box_predictor|mask_head|res5))\.",
        "Detectron2 without an RPN or RoI heads",
        "",
    ),
    (r"^roi_heads\.box\.(predictor|feature_extractor)\.", "maskrcnn-benchmark", ""),
    (r"^roi_head\.bbox_head\.", "MMDetection 2 or 3", ""),
    (r"^bbox_head\.fc_cls\.", "MMDetection 1", ""),
    (r"(^|/)mrcnn_(class|bbox|mask)|^rpn_model/", "Matterport's Mask_RCNN", ""),
    (r"^(classifier\.linear_class|rpn\.conv_shared|fpn\.C\d)\.", "a part of pytorch-mask-rcnn", ""),
    (r"^conv_rpn(_fpn\d)?_w$|^res\d_\d_branch2", "Detectron", ""),
    (r"^(fastrcnn|maskrcnn)/|^group0/block0/", "tensorpack", ""),
    (
        r"^(image_encoder|sam_(prompt_encoder|mask_decoder)|prompt_encoder|mask_decoder|vision_encoder)\.",
        "Segment Anything (SAM)",
        NO_MASK_RCNN,
    ),
    (
        r"^(model\.){0,2}\d+\.(conv|cv\d|m|dfl|bn)\.|^backbone\.(stem|stage\d)\..*\.main_conv\.|^module_list\.\d+\.",
        "YOLO (Ultralytics and others)",
        NO_MASK_RCNN,
    ),
    (r"^(backbone\.backbone|backbone)\.dark\d\.", "YOLOX", NO_MASK_RCNN),
    (
        r"^sem_seg_head\.(predictor\.(query|transformer|class_embed|mask_embed|decoder_norm|level_embed|static_query)"
        r"|pixel_decoder\.)|masked_attention|^pixel_level_module\.",
        "Mask2Former or MaskFormer",
        NO_MASK_RCNN,
    ),
    (r"sampling_offsets\.", "Deformable DETR or one of its relatives (DINO, RT-DETR)", NO_MASK_RCNN),
    (
        r"^(model\.|detr\.)*(transformer\.(encoder|decoder)\.|class_embed\.|query_embed\.|class_labels_classifier\."
        r"|query_position_embeddings)",
        "DETR",
        NO_MASK_RCNN,
    ),
    (r"^sem_seg_head\.", "a network of semantic segmentation of Detectron2", NO_MASK_RCNN),
    (r"^head\.(classification|regression)_head\.module_list\.", "SSD", NO_MASK_RCNN),
    (
        r"^(bbox_head\.(cls|reg)_convs\.\d+\.conv|neck\.l2_norm)\.weight$",
        "SSD or RetinaNet of MMDetection",
        NO_MASK_RCNN,
    ),
    (r"bbox_ctrness|centerness|conv_centerness", "FCOS", NO_MASK_RCNN),
    (r"^head\.(classification_head|cls_subnet|bbox_subnet)\.|retina_(cls|reg)", "RetinaNet", NO_MASK_RCNN),
    (r"^(class_net|box_net)\.|^fpn\.cell\.", "EfficientDet", NO_MASK_RCNN),
    (r"^(hm|wh|reg)\.\d\.|^heatmap_head\.", "CenterNet", NO_MASK_RCNN),
    (r"\.lora_[AB]\.|self_attn\.q_proj\.|^transformer\.h\.\d", "a language model", NO_MASK_RCNN),
    (r"^decode_head\.|^(aux_)?classifier\.\d\.\d", "another network of semantic segmentation", NO_MASK_RCNN),
    (r"^(fc|head\.fc|head|classifier|classifier\.\d)\.weight$", "a classifier (timm, torchvision)", BACKBONE),
    (r"^(layer4|stages\.3|stem\.conv1|res5)\.", "a backbone", BACKBONE),
)

# Backbones of detectors that an importer recognises. Only ResNets and ResNeXts can be opened.
NO_RESNET = (
    "only weights with a ResNet or ResNeXt can be opened; train anew, with a ResNet or a backbone of timm "
    "(docs/models.md)"
)
BACKBONES: Table = (
    (
        r"^backbone(\.body|\.features|\.bottom_up)?(\.\d+)+\.weight$",
        "layers without names (VGG, nn.Sequential)",
        NO_RESNET,
    ),
    *(
        (rf"^backbone(?=\.).*{pattern}", what, NO_RESNET)
        for pattern, what in (
            (r"\.relative_position_bias_table$|\.attn\.w_msa\.", "a Swin Transformer"),
            (r"\.attn\.(pool|norm)_[qkv]\.", "an MViT"),
            (r"\.attn\.(sr|q|kv)\.", "a Pyramid Vision Transformer (PVT)"),
            (r"\.(pos_embed|cls_token)$|\.attn\.(qkv|rel_pos_[hw])\b", "a Vision Transformer (ViT, ViTDet)"),
            (r"\.s[1-4]\.b\d+\.|\bblock\d-\d+\.f\.", "a RegNet"),
            (
                r"\.depthwise_conv\.conv\.|\._blocks\.\d+\.|\.block\.\d\.(fc[12]|0)\.|\.conv_pwl?\.|\.\d+\.conv\.\d\.0\.",
                "an EfficientNet or MobileNet",
            ),
            (
                r"\.(dwconv|depthwise_conv|conv_dw)\.(weight|bias)$|\.layer_scale$|\.(pwconv|pointwise_conv)1\.",
                "a ConvNeXt",
            ),
            (r"\.(stage\d\.\d+\.(branches|fuse_layers)|transition\d)\.", "an HRNet"),
            (r"\.(layer\d|res\d)\.\d+\.conv2\.(fc[12]|bn[01]|conv)\.", "a ResNeSt"),
            (r"\.(layer\d|res\d)\.\d+\.convs\.\d", "a Res2Net"),
            (r"\.(layer\d|res\d)\.\d+\.(se|se_module|se_layer)\.", "an SE-ResNet"),
            (r"\.denseblock\d", "a DenseNet"),
            (r"\.OSA\d|\.stage\d\.OSA", "a VoVNet"),
            (r"\.level\d\.tree", "a DLA"),
            (r"\.main_conv\.|\.dark\d\.", "a CSPDarknet"),
            (r"\.(stem|deep_stem)\.\d\.(conv\.)?weight$", "a ResNet-C or -D, whose stem has three convolutions"),
        )
    ),
)
# The type of the backbone in the text of a config of MMDetection.
BACKBONE_TYPE = re.compile(r"backbone['\"]?\s*[=:]\s*(?:dict\(|\{)[^(){}]*?type['\"]?\s*[=:]\s*['\"](\w+)")

# Parts beside a Mask R-CNN, which are unexpected. They can be left out.
BESIDE: Table = (
    (r"^sem_seg_head\.", "the semantic segmentation of a Panoptic FPN", ""),
    (r"densepose", "DensePose", ""),
    (r"mask_?iou", "the mask scoring of Mask Scoring R-CNN", ""),
    (r"semantic_head\.|semantic_roi", "the semantic branch of HTC", ""),
    (r"^ema_|\.ema_", "averages of the weights (EMA)", ""),
)


def found_in(table: Table, names: Collection[str]) -> tuple[str, str]:
    """What has such tensor names, and advice on what to do with it. Both are empty if no pattern matches."""
    text = "\n".join(names)
    for pattern, what, advice in table:
        if re.search(pattern, text, re.MULTILINE):
            return what, advice
    return "", ""


def other_backbone(names: Collection[str], config: Any) -> tuple[str, str]:
    """The backbone of a detector and advice if it is no ResNet. Otherwise both are empty.

    Args:
        config: the text or the settings of a config of MMDetection, or anything else.
    """
    what, advice = found_in(BACKBONES, names)
    if isinstance(config, str):
        found = BACKBONE_TYPE.search(config)
        stated = found[1] if found else None
    else:
        stated = setting(config, "model.backbone.type")
    if not what and isinstance(stated, str) and stated not in ("ResNet", "ResNeXt"):
        what, advice = stated, NO_RESNET
    return what, advice
