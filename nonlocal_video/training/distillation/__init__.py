"""Knowledge distillation: a student network learns from a teacher's answers and features."""
