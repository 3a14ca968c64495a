metadata description = 'Gives the app access to one or more subscriptions: the custom role and its assignment in each'

targetScope = 'subscription'

@description('Object id of the app\'s identity: the output IDENTITY_PRINCIPAL_ID of main.bicep.')
@minLength(36)
@maxLength(36)
param principalId string

@description('Whether the app gets the role that runs commands on nodes, as root: the one for auditing and fixing them.')
param nodes bool = true

@description('Whether the app gets the role that invokes commands in clusters, for asking kubelets through them.')
param sweep bool = false

@description('Whether that role (also) lets the app ask API servers by itself: it hands out the users\' credentials of clusters.')
param sweepApi bool = false

@description('Ids of the subscriptions, each once. Default: the one that this is deployed to.')
@minLength(1)
param subscriptions string[] = [
  subscription().subscriptionId
]

// A name is Azure's for one region for ever, so that this deployment's own name is in those of its parts.
module access 'modules/access.bicep' = [
  for id in subscriptions: {
    name: 'kubelet-guard-access-${uniqueString(id, principalId, deployment().name)}'
    scope: subscription(id)
    params: {
      principalId: principalId
      nodes: nodes
      sweep: sweep
      sweepApi: sweepApi
    }
  }
]
