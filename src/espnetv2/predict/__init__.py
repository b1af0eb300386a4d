"""From pictures, folders, videos and cameras to results on disk."""
