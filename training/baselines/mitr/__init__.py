"""MITR (Meng et al., "Connecting What to Say With Where to Look by Modeling Human Attention Traces", CVPR 2021).

A transformer that writes a description word by word and says, with each word, where in the image its speaker looks. Of
the tasks in its paper only the joint one is here, in which nothing but the image is given, as to all other systems.

How DEPER's authors adapted it is not published; what differs from MITR's own paper is named where it is done.
"""
