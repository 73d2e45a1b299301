"""Reports: pages about a result, as Markdown and as one HTML file that needs nothing else.

page      the parts of a page, and their two renderings
figures   plots as PNG files
training  the page about a trained model
sweep     the page about trainings that differ in their learning rate
mixtures  the page about models that were trained on mixtures
"""
