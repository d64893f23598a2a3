"""CSMN, the Context Sequence Memory Network (Park et al., "Attend to You", CVPR 2017).

A captioner whose one memory holds the image, the words that most tell a person from others, and the words written so
far. All it knows of a person is that list of words, so somebody new needs no training. What differs from the authors'
code: the words of unseen people come from their support samples alone, empty slots of the memory are masked, texts may
be as long as 95 of 100 training texts are, and the optimiser is that of `training.loop.train`.
"""
