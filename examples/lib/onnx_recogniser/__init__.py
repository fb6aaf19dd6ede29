"""A public recogniser, PP-OCRv4's, from an ONNX file to a module that is trained with CTC.

`operators.py` and `onnx_module.py` turn a graph into a module, `recogniser.py` takes PP-OCRv4's
apart, `lines.py` and `digits.py` make images to read, `labels.py` and `sets.py` what it is trained
on. The study is `benchmarks/public_recogniser.py`.
"""
