"""A trained model put to use: films of any place scored, and the model as a folder that stands alone."""
