"""M²UNet: lung lobes and COVID-19 severity from a chest CT, with one jointly trained network.

For research use only. Not a medical device.
"""

__version__ = "0.1.0"
