"""The losses of DEPER, named after the paper's; each returns a mean, and a stage weighs it.

L_con is in `contrastive.py`, L_traj = L_box + L_valid in `trajectory.py` and L_des in `description.py`. L_cls is
`torch.nn.functional.cross_entropy` of the subject head's logits, called by both stages.
"""
