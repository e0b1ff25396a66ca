# SPDX-License-Identifier: Apache-2.0
"""All keyframes so far: FAISS inner-product search that excludes the recent ones inside the search."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, cast
from uuid import UUID, uuid4

import numpy as np
import numpy.typing as npt

from vlad_ros.config import BevConfig
from vlad_ros.mapping import tables
from vlad_ros.mapping.check import check_geometry
from vlad_ros.mapping.codec import quantise
from vlad_ros.mapping.corrections import Corrections
from vlad_ros.mapping.exclusion import Exclusion
from vlad_ros.mapping.index import EXACT, DescriptorIndex, Job
from vlad_ros.mapping.lock import MapError
from vlad_ros.mapping.rows import LOCAL_MAP, KeyframeRow, Rows, record
from vlad_ros.mapping.store import MapStore, explain, write_copy
from vlad_ros.mapping.version2 import open_any
from vlad_ros.poses import check_rigid
from vlad_ros.settings import from_mapping
from vlad_ros.stopwatch import stage
from vlad_ros.types import F32, F64, Candidate, Geometry, Ints, Keyframe, PathLike

__all__ = ["KeyframeDatabase", "KeyframeRow", "MapError"]

Kind = Literal["points", "bev"]
METRIC = "inner_product"
SINGLE_SCANS = 0.1  # share; fewer keyframes without a local map are those of gaps in the odometry
MAX_UINT32 = 2**32 - 1
THREADS = min(4, len(os.sched_getaffinity(0)))  # more do not help: the search is limited by memory bandwidth
_POOL = ThreadPoolExecutor(THREADS, "search")
