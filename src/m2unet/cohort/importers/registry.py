"""The data sets that can be imported, by name."""

from __future__ import annotations

from types import MappingProxyType

from m2unet.cohort.importers import covid_ct_seg, luna16, mask_folder, mosmed, stoic, totalsegmentator
from m2unet.cohort.importers.items import DataSet

DATA_SETS: MappingProxyType[str, DataSet] = MappingProxyType(
    {
        module.DATA_SET.name: module.DATA_SET
        for module in (stoic, mosmed, totalsegmentator, luna16, covid_ct_seg, mask_folder)
    }
)
