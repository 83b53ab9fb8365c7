"""From raw text, sound and images to features."""
