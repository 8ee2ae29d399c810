"""Export of networks to files that run without this project: ONNX, OpenVINO, torch.export."""
