"""The frozen vision-language model as training sees it."""
