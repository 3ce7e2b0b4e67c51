"""Checkpoints as the released implementation writes them."""

from err_seg.models.checkpoint_names import current_name


def released_state(model):
    """Write the model's state under the names of a released checkpoint, found by inverting the import."""
    back = {}
    for branch in ("spatial", "class"):
        for layer in range(2):
            sa = f"decoder.aggregator_layers.{layer}.{branch}_fusion.sa"
            entries = ["norm1", "norm2", *(f"attention.{n}" for n in ("q", "k", "v", "proj"))]
            entries += ["mlp.fc1", "mlp.fc2", "mlp.fc3"]
            if branch == "spatial":
                entries += [*(f"attention.{n}_{kv}" for n in ("sr", "norm") for kv in "kv"), "mlp.dwconv.dwconv"]
            back |= {f"{sa}.{entry}": None for entry in entries}
    back |= {f"decoder.corr_proj_convs.{i}.0": None for i in range(2)}
    back |= {f"decoder.img_guidance_projection_agg.{i}.0": None for i in range(2)}
    back |= {f"decoder.img_guidance_projection_dec.{i}.0": None for i in range(3)}
    back |= {f"decoder.{n}": None for n in ("low_corr_fusion", "low_img_fusion", "text_guidance_projection.0", "head")}
    for i in (1, 2, 3):
        back |= {
            f"decoder.up_decoder{i}.{n}": None for n in ("up_conv", *(f"textual_fusion.{j}" for j in (0, 1, 3, 4)))
        }
    names = {}
    for stem in back:
        for kind in ("weight", "bias"):
            names[current_name(f"sem_seg_head.{stem}.{kind}")] = f"sem_seg_head.{stem}.{kind}"
    state = {}
    for name, value in model.state_dict().items():
        if name.startswith("encoder.hsm."):
            index = {"norm": 0, "conv": 2}[name.split(".")[2]]
            name = f"sem_seg_head.clip_model.visual.modify_downsample.{index}.{name.split('.')[3]}"
        elif name.startswith("encoder.clip."):
            name = name.replace("encoder.clip.", "sem_seg_head.clip_model.")
        else:
            name = names[name]
        state[name] = value
    return state
