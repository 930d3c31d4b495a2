"""Faces: shots, tracks, detectors, landmarks, and which of them speak."""
