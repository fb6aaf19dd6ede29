"""A small speech recogniser: CTC on log-mel features of sentences that eSpeak NG's voices speak.

`espeak.py` calls the synthesiser, `sentences.py` says what is spoken, `features.py` makes log-mel
features of it, `sets.py` puts them together, `recogniser.py` is the model. The study is
`benchmarks/speech_recogniser.py`.
"""
