"""Labels for synthetic video: stamp, container tags, Content Credentials (C2PA), watermark."""
