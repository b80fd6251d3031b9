#!/usr/bin/env bash
# From nothing to a stack whose service is replaced under load, and to one that a push replaces: what `make demo` shows. Needs root, neargate and the AWS CLI
# on PATH.
# It works in a data directory of its own and takes everything away again.
set -euo pipefail
cd "$(dirname "$0")"
if [ "$(id -u)" != 0 ]; then
    exec sudo --preserve-env=PATH "$0" "$@"
fi

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
work=$(mktemp -d)
export NEARGATE_DATA_DIR=$work/data
unset AWS_PROFILE AWS_SESSION_TOKEN AWS_CA_BUNDLE
export AWS_PAGER=""
export REGISTRY_AUTH_FILE=$work/auth.json
listen=127.0.0.1:${NEARGATE_DEMO_PORT:-4566}
port=${NEARGATE_DEMO_PAGE_PORT:-8088}

finish() {
    say "taking everything away"
    neargate down || true
    buildah rmi -f neargate-hello >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT

say "starting Neargate"
neargate up --listen "$listen"
eval "$(neargate env)"
account=$(aws sts get-caller-identity --query Account --output text)
echo "account $account, region $AWS_DEFAULT_REGION"

say "building examples/hello and pushing it to ECR"
cp Dockerfile passwd start "$work/"
cp "$(command -v busybox)" "$work/busybox"
buildah bud --isolation chroot -q -t neargate-hello "$work" >/dev/null
repository=$(aws ecr create-repository --repository-name hello --query repository.repositoryUri --output text)
aws ecr get-login-password | skopeo login --tls-verify=false --username AWS --password-stdin "${repository%%/*}"
skopeo copy -q --dest-tls-verify=false containers-storage:localhost/neargate-hello:latest "docker://$repository:latest"
echo "pushed $repository:latest"

say "deploying patterns/web-service.yaml: roles, logs, a cluster, a load balancer and a service of two tasks"
vpc=$(aws ec2 describe-vpcs --filters Name=is-default,Values=true --query 'Vpcs[0].VpcId' --output text)
subnets=$(aws ec2 describe-subnets --filters "Name=vpc-id,Values=$vpc" --query 'Subnets[0:2].SubnetId' --output text | tr '\t' ',')
deploy() {
    aws cloudformation deploy --stack-name hello --template-file ../../patterns/web-service.yaml --capabilities CAPABILITY_IAM \
        --parameter-overrides "Image=$repository:latest" "Vpc=$vpc" "Subnets=$subnets" "ListenerPort=$port" DesiredCount=2 "$@"
}
if ! deploy; then
    aws cloudformation describe-stack-events --stack-name hello --output text \
        --query 'StackEvents[].[LogicalResourceId,ResourceStatus,ResourceStatusReason]' >&2
    exit 1
fi
output() { aws cloudformation describe-stacks --stack-name hello --output text --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue"; }
cluster=$(output Cluster) service=$(output Service) url=$(output Url)

say "its page, $url"
curl -s --fail --retry 10 --retry-connrefused --retry-delay 1 "$url"

say "its log lines"
logs=$(aws cloudformation describe-stack-resource --stack-name hello --logical-resource-id Logs \
    --query StackResourceDetail.PhysicalResourceId --output text)
aws logs filter-log-events --log-group-name "$logs" --query 'events[0:4].message' --output text | tr '\t' '\n'

say "a new version replaces the old one, while four clients ask without a pause"
for client in 1 2 3 4; do
    # Each answer is a line: its status, and the page.
    while [ ! -e "$work/enough" ]; do
        curl -s -o - -w '%{http_code}\n' --max-time 10 "$url" | tr '\n' ' ' || true
        echo
    done > "$work/answers.$client" &
done
deploy "Command=/bin/busybox,sh,-c,GREETING='Hello from the second version' exec /bin/busybox sh /start"
touch "$work/enough"
wait
curl -s --fail "$url"
total=$(cat "$work"/answers.* | wc -l)
bad=$(grep -vc ' 200 $' < <(cat "$work"/answers.*) || true)
echo "$total requests, $bad failed"
aws cloudformation describe-stack-events --stack-name hello --output text \
    --query 'reverse(StackEvents[0:10])[].[ResourceStatus,LogicalResourceId]'
aws ecs describe-services --cluster "$cluster" --services "$service" --query 'reverse(services[0].events[0:6].message)' \
    --output text | tr '\t' '\n'

say "deploying patterns/pushed-service.yaml: a service with a repository, a pipeline and blue/green deployments of its own"
aws s3 mb "s3://pushed-$account" >/dev/null
aws cloudformation deploy --stack-name pushed --template-file ../../patterns/pushed-service.yaml --capabilities CAPABILITY_IAM \
    --parameter-overrides "Image=$repository:latest" "Vpc=$vpc" "Subnets=$subnets" "ListenerPort=$((port + 1))" \
    "TestPort=$((port + 2))" RepositoryName=hello "ArtifactBucket=pushed-$account" TerminationWait=0 \
    "Command=/bin/busybox,sh,-c,GREETING='Hello from the stack' exec /bin/busybox sh /start"
output() { aws cloudformation describe-stacks --stack-name pushed --output text --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue"; }
url=$(output Url) clone=$(output CloneUrl) pipeline=$(output Pipeline)
curl -s --fail --retry 10 --retry-connrefused --retry-delay 1 "$url"

say "git push to $clone"
mkdir "$work/app"
cat > "$work/app/appspec.yaml" <<END
version: 0.0
Resources:
  - TargetService:
      Type: AWS::ECS::Service
      Properties:
        TaskDefinition: <TASK_DEFINITION>
        LoadBalancerInfo: {ContainerName: web, ContainerPort: 8080}
END
aws ecs describe-task-definition --task-definition "$(output Definition)" --query 'taskDefinition.{family:family,cpu:cpu,
    memory:memory,networkMode:networkMode,requiresCompatibilities:requiresCompatibilities,executionRoleArn:executionRoleArn,
    containerDefinitions:containerDefinitions}' | sed "s/Hello from the stack/Hello from a push/" > "$work/app/taskdef.json"
in_app() { git -C "$work/app" -c user.name=Demo -c user.email=demo@example.com -c credential.UseHttpPath=true \
    -c credential.helper= -c 'credential.helper=!aws codecommit credential-helper get --ignore-host-check #' "$@"; }
in_app init -q --initial-branch=main
in_app add -A
in_app commit -q -m "The first version from here"
rm -f "$work/enough"
while [ ! -e "$work/enough" ]; do
    curl -s -o - -w '%{http_code}\n' --max-time 10 "$url" | tr '\n' ' ' || true
    echo
done > "$work/answers.pushed" &
in_app push -q "$clone" main
status() { aws codepipeline list-pipeline-executions --pipeline-name "$pipeline" --output text \
    --query 'pipelineExecutionSummaries[?trigger.triggerType==`CloudWatchEvent`].[status]'; }
until [ -n "$(status)" ] && [ "$(status)" != InProgress ]; do sleep 1; done
touch "$work/enough"
wait
aws codepipeline list-action-executions --pipeline-name "$pipeline" --output text \
    --query 'actionExecutionDetails[].[stageName,actionName,status,output.executionResult.externalExecutionSummary]'
curl -s --fail "$url"
total=$(wc -l < "$work/answers.pushed")
lost=$(grep -vc ' 200 $' "$work/answers.pushed" || true)
echo "$total requests, $lost failed"

say "neargate status"
neargate status
[ "$bad" = 0 ] && [ "$lost" = 0 ] && [ "$(status)" = Succeeded ]
