"""Knowledge distillation: training a student on a teacher's outputs and features."""
